"""The one address of a cluster: control plane of the Envoy that carries every request."""
