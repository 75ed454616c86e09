"""Which providers are chosen, and what is bound, with a session that is a stand-in."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_worker.inference.providers import DeviceRunner, choose, on_gpu

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("available", "tensorrt", "names"),
    [
        ([CPU], True, [CPU]),
        (["AzureExecutionProvider", CPU], False, [CPU]),
        ([TENSORRT, CUDA, CPU], True, [TENSORRT, CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], False, [CUDA, CPU]),
    ],
)
def test_the_best_that_is_here_comes_first(
    available: list[str], tensorrt: bool, names: list[str]
) -> None:
    chosen = choose(available, tensorrt)
    assert [each if isinstance(each, str) else each[0] for each in chosen] == names


class Output(NamedTuple):
    name: str


class StubValue:
    """A buffer on a device, and how often it was made or written."""

    made: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array.copy()

    @staticmethod
    def ortvalue_from_numpy(array: NDArray[Any], device: str, number: int) -> StubValue:
        assert (device, number) == ("cuda", 0)
        StubValue.made.append(array.shape)
        return StubValue(array)

    def update_inplace(self, array: NDArray[Any]) -> None:
        assert array.shape == self.array.shape
        self.array[:] = array


class StubBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, StubValue] = {}
        self.outputs: list[str] = []
        self.answers: list[NDArray[Any]] = []

    def bind_ortvalue_input(self, name: str, value: StubValue) -> None:
        self.inputs[name] = value

    def bind_output(self, name: str, device: str, number: int) -> None:
        assert (device, number) == ("cuda", 0)
        self.outputs.append(name)

    def copy_outputs_to_cpu(self) -> list[NDArray[Any]]:
        return self.answers


class StubSession:
    def get_outputs(self) -> list[Output]:
        return [Output("sum"), Output("double")]

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def io_binding(self) -> StubBinding:
        return StubBinding()

    def run_with_iobinding(self, binding: StubBinding) -> None:
        assert binding.outputs == ["sum", "double"]
        x = binding.inputs["x"].array
        binding.answers = [x.sum(axis=1), x * 2]


def test_inputs_and_outputs_are_bound_on_the_device_and_buffers_kept_by_shape() -> None:
    StubValue.made.clear()
    runner = DeviceRunner(StubSession(), StubValue)
    for rows, value in ((1, 1.0), (4, 2.0), (1, 3.0), (4, 4.0)):
        total, double = runner.run({"x": np.full((rows, 2), value)})
        assert total.tolist() == [2 * value] * rows
        assert double.tolist() == [[2 * value] * 2] * rows
    assert StubValue.made == [(1, 2), (4, 2)]


def test_few_buffers_are_kept() -> None:
    StubValue.made.clear()
    runner = DeviceRunner(StubSession(), StubValue)
    for rows in (*range(1, 50), 1):
        runner.run({"x": np.ones((rows, 2))})
    assert len(StubValue.made) == 50


def test_what_fell_back_to_the_processor_is_not_bound() -> None:
    assert on_gpu(StubSession())

    class Fallen(StubSession):
        def get_providers(self) -> list[str]:
            return [CPU]

    assert not on_gpu(Fallen())
