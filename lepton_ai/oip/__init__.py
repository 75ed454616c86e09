"""The Open Inference Protocol, version 2: tensors and their REST encoding.

Client and inference server share this package, so it imports nothing heavier than NumPy and
orjson. The protocol's text: https://github.com/kserve/open-inference-protocol, and for the
binary tensor extension Triton's `extension_binary_data`.
"""

from lepton_ai.oip.datatypes import datatype_of, numpy_dtype
from lepton_ai.oip.rows import as_tensor, batches_of
from lepton_ai.oip.tensor import (
    Tensor,
    decode_raw,
    encode_raw,
    from_float32,
    shaped,
    to_float32,
)

__all__ = [
    "Tensor",
    "as_tensor",
    "batches_of",
    "datatype_of",
    "decode_raw",
    "encode_raw",
    "from_float32",
    "numpy_dtype",
    "shaped",
    "to_float32",
]
