"""Where models compute: on which of ONNX Runtime's providers, and how tensors reach a GPU."""

from __future__ import annotations

import ctypes.util
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from numpy.typing import NDArray

_TENSORRT = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DEVICE = "cuda"
# Shapes of inputs whose buffers on the GPU are kept, for each thread that computes.
_KEPT_BUFFERS = 32

Provider = str | tuple[str, dict[str, str]]


def has_tensorrt() -> bool:
    """Whether TensorRT itself is here: ONNX Runtime names its provider also where it is not."""
    return ctypes.util.find_library("nvinfer") is not None


def choose(available: Sequence[str], tensorrt: bool) -> list[Provider]:
    """The providers to compute on, best first; each takes what those before it cannot compute.

    Args:
        available: What this build of ONNX Runtime names.
        tensorrt: Whether TensorRT is here.
    """
    chosen: list[Provider] = []
    if tensorrt and _TENSORRT in available:
        chosen.append(_TENSORRT)
    if _CUDA in available:
        # Trying every algorithm anew for each size of a batch would take seconds.
        options = {"cudnn_conv_algo_search": "HEURISTIC"}
        chosen.append((_CUDA, options | {"arena_extend_strategy": "kSameAsRequested"}))
    return [*chosen, _CPU]


class DeviceRunner:
    """Runs a session on a GPU with its tensors bound there. May be called from several threads.

    Buffers of inputs are kept for each shape, so that a batch is one copy into memory that is there
    already, and outputs come back together.

    Args:
        session: An `onnxruntime.InferenceSession` on a GPU.
        values: `onnxruntime.OrtValue`.
    """

    def __init__(self, session: Any, values: Any) -> None:
        self._session = session
        self._values = values
        self._outputs = [output.name for output in session.get_outputs()]
        self._of_thread = threading.local()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute; one array an output, in the model's order."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, self._buffer(name, array))
        for name in self._outputs:
            binding.bind_output(name, _DEVICE, 0)
        self._session.run_with_iobinding(binding)
        return cast("list[NDArray[Any]]", binding.copy_outputs_to_cpu())

    def _buffer(self, name: str, array: NDArray[Any]) -> Any:
        buffers: OrderedDict[Any, Any] = vars(self._of_thread).setdefault("buffers", OrderedDict())
        key = name, array.shape
        buffer = buffers.get(key)
        if buffer is None:
            buffer = buffers[key] = self._values.ortvalue_from_numpy(array, _DEVICE, 0)
            if len(buffers) > _KEPT_BUFFERS:
                buffers.popitem(last=False)
        else:
            buffer.update_inplace(array)
            buffers.move_to_end(key)
        return buffer


def on_gpu(session: Any) -> bool:
    """Whether a session computes on a GPU, which it may not where a provider failed to start."""
    return bool({_TENSORRT, _CUDA} & set(session.get_providers()))
