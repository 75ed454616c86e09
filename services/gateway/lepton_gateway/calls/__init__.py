"""Calls of gRPC inference that Envoy does not carry to a replica as they come."""
