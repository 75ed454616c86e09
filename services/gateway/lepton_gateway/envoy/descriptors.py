"""The descriptors that REST calls are turned into gRPC calls by."""

from __future__ import annotations

import base64
from importlib.resources import files

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

__all__ = ["base64_descriptors", "service_descriptors"]


def service_descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Every service of the cluster and all that it refers to."""
    content = (files("lepton_ai.proto.v1") / "descriptors.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(content)


def base64_descriptors() -> str:
    """The same for Envoy, with what the details of errors are made of."""
    descriptors = service_descriptors()
    for module in (any_pb2, duration_pb2, status_pb2, error_details_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    return base64.b64encode(descriptors.SerializeToString()).decode()
