"""The one address of a cluster: control plane of the Envoy that carries every request."""

# It comes before gRPC.
import lepton_runtime  # noqa: F401 # pyright: ignore[reportUnusedImport]
