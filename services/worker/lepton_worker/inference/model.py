"""An ONNX model in an ONNX Runtime session."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.oip import numpy_dtype
from lepton_worker.inference import memory, providers
from lepton_worker.inference.options import ServingOptions
from lepton_worker.inference.signature import Signature, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

_DATATYPE = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ONNX_BFLOAT16 = 16
# What has no NumPy type, and texts.
_UNBOUND = ("BF16", "BYTES")
# Batches of more than two rows are left out once warming up took this long.
_WARM_UP_S = 0.5
_USUAL_BATCH_SIZE = 64
# ONNX Runtime reads weights outside of a model only below this folder, which can never exist.
_NO_FOLDER = "/dev/null/external-data-is-refused"
_PLACE = re.compile(r"\[ONNXRuntimeError\] : |/\S+:\d+ |\S*onnxruntime::[^:]*(::[^:]*)* ")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model may use.

    Attributes:
        threads: Threads that compute one batch.
        file_bytes: Size of the model's file.
    """

    threads: int
    file_bytes: int


class Servable(Protocol):
    """What can be served: a `Model`, or several of them in a row.

    Attributes:
        signature: What it takes and gives.
        size_bytes: Memory that it takes.
    """

    signature: Signature
    size_bytes: int

    @property
    def uniform(self) -> bool:
        """Whether every row takes as long to compute as another, in a batch of any size."""
        ...

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute; may be called from several threads."""
        ...


class Model:
    """A loaded model. `run` may be called from several threads.

    Args:
        data: The ONNX file's content. Weights outside of the file are refused.
        options: How it is served.
        limits: What the model may use.

    Attributes:
        signature: What it takes and gives.
        size_bytes: By how much the heap grew when it was loaded, at least the file's size. The
            memory of a GPU is not in it.

    Raises:
        InvalidArgumentError: This is no model that can be served; says why.
    """

    def __init__(self, data: bytes, options: ServingOptions, limits: ModelLimits) -> None:
        before_bytes = memory.allocated_bytes()
        self._session = _open_session(data, limits.threads)
        inputs = _specs(self._session.get_inputs())
        outputs = _specs(self._session.get_outputs())
        self._input_names = [spec.name for spec in inputs]
        # BF16 has no NumPy type, and only the slower of the two ways to run takes its bits.
        self._has_bf16 = any(spec.datatype == "BF16" for spec in inputs + outputs)
        self._text_inputs = [spec.datatype == "BYTES" for spec in inputs]
        self._device = _device_runner(self._session, inputs + outputs)
        batch_limit = options.max_batch_size if _may_batch(self._session) else 0
        self.signature = Signature(inputs, outputs, batch_limit)
        self._warm_up(options)
        self.size_bytes = max(len(data), memory.allocated_bytes() - before_bytes)

    @property
    def uniform(self) -> bool:
        """Whether every row takes as long to compute as another, in a batch of any size.

        Providers of GPUs may prepare themselves for each new size, which takes up to minutes.
        """
        return self.signature.is_uniform and not providers.on_gpu(self._session)

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute.

        Args:
            arrays: One an input, in the signature's order, C-contiguous.

        Returns:
            One array an output, in the signature's order.

        Raises:
            InvalidArgumentError: A BYTES element is not UTF-8, which ONNX texts have to be.
        """
        feeds = {
            name: _texts(name, array) if is_text else array
            for name, array, is_text in zip(
                self._input_names, arrays, self._text_inputs, strict=True
            )
        }
        if self._has_bf16:
            return self._run_ort_values(feeds)
        if self._device is not None:
            return self._device.run(feeds)
        return cast("list[NDArray[Any]]", self._session.run(None, feeds))

    def _run_ort_values(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        from onnxruntime import OrtValue

        values: dict[str, OrtValue] = {}
        for spec in self.signature.inputs:
            array = feeds[spec.name]
            if spec.datatype == "BF16":
                value = OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BFLOAT16)
            else:
                value = OrtValue.ortvalue_from_numpy(array)
            values[spec.name] = value
        outputs = self._session.run_with_ort_values(None, values)
        return [
            _bits(output) if spec.datatype == "BF16" else output.numpy()
            for spec, output in zip(self.signature.outputs, outputs, strict=True)
        ]

    def _warm_up(self, options: ServingOptions) -> None:
        """Run once with zeros at each size that batches often have, where all others are known.

        Shapes alone do not prove that the first dimension is the batch's: a model whose answers do
        not have as many rows as they were asked for is served without batching.
        """
        signature = self.signature
        batched = bool(signature.max_batch_size)
        if any(-1 in spec.shape[batched:] for spec in signature.inputs):
            return
        started_s = time.monotonic()
        for rows in warm_sizes(signature.max_batch_size, options.preferred_batch_sizes):
            if rows > 2 and time.monotonic() - started_s > _WARM_UP_S:
                return
            outputs = self.run(_zeros(signature.inputs, rows))
            if batched and any(output.shape[:1] != (rows,) for output in outputs):
                self.signature = Signature(signature.inputs, signature.outputs, 0)
                return


def warm_sizes(max_batch_size: int, preferred: Sequence[int]) -> list[int]:
    """The rows of the batches that a model is warmed up with, fewest first.

    Args:
        max_batch_size: Rows in a batch at most; 0 for a model without batching.
        preferred: Rows of the batches that are preferred.
    """
    if not max_batch_size:
        return [1]
    usual = {1, 2, *preferred, min(max_batch_size, _USUAL_BATCH_SIZE)}
    return sorted(size for size in usual if size <= max_batch_size)


def load_engine() -> None:
    """Import ONNX Runtime now rather than with the first model."""
    importlib.import_module("onnxruntime")


def _device_runner(
    session: onnxruntime.InferenceSession, specs: Sequence[TensorSpec]
) -> providers.DeviceRunner | None:
    """What binds tensors on a GPU; None on a processor, and for texts, which no GPU holds."""
    if not providers.on_gpu(session) or any(spec.datatype in _UNBOUND for spec in specs):
        return None
    from onnxruntime import OrtValue

    return providers.DeviceRunner(session, OrtValue)


def _open_session(data: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    # The arena never gives memory back and grows with every new shape; see `memory.py`.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    chosen = providers.choose(onnxruntime.get_available_providers(), providers.has_tensorrt())
    try:
        session = onnxruntime.InferenceSession(data, options, providers=chosen)
    except Exception as error:
        raise InvalidArgumentError(
            "not a model that ONNX Runtime can load", hint=_reason(error)
        ) from error
    # It keeps the file's content to open itself again on another provider, which is not wanted:
    # that would double what a model takes.
    session.disable_fallback()
    vars(session).pop("_model_bytes", None)
    return session


def _reason(error: Exception) -> str:
    """ONNX Runtime's text without the places in its sources that it names."""
    if "xternal data" in str(error):
        return "weights have to be inside of the model's file, external data is refused"
    return _PLACE.sub("", str(error)).strip()


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(node) for node in nodes)


def _spec(node: Any) -> TensorSpec:
    datatype = _DATATYPE.get(node.type)
    if datatype is None:
        raise InvalidArgumentError(
            f"tensor {node.name!r} of the model is a {node.type}",
            hint=f"allowed are {', '.join(_DATATYPE)}",
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, datatype, shape)


def _may_batch(session: onnxruntime.InferenceSession) -> bool:
    """Whether all inputs and outputs begin with the same free dimension."""
    firsts = {
        node.shape[0] if node.shape else 0
        for node in itertools.chain(session.get_inputs(), session.get_outputs())
    }
    return len(firsts) == 1 and not isinstance(firsts.pop(), int)


def _zeros(specs: Sequence[TensorSpec], rows: int) -> list[NDArray[Any]]:
    return [
        np.full(
            tuple(rows if size == -1 else size for size in spec.shape),
            b"" if spec.datatype == "BYTES" else 0,
            numpy_dtype(spec.datatype),
        )
        for spec in specs
    ]


def _texts(name: str, array: NDArray[Any]) -> NDArray[Any]:
    texts = np.empty(array.size, object)
    try:
        # What a model before this one gave is text already.
        texts[:] = [
            element if isinstance(element, str) else element.decode() for element in array.ravel()
        ]
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"input {name!r} has an element that is not UTF-8") from None
    return texts.reshape(array.shape)


def _bits(value: onnxruntime.OrtValue) -> NDArray[Any]:
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, np.uint16).reshape(value.shape())
