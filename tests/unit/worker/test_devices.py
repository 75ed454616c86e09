"""Accelerators belong to one task at a time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lepton_ai.proto.v1 import task_pb2
from lepton_worker.devices import Devices, see_only
from lepton_worker.program import Folders, environment_of


def test_each_belongs_to_one_task_at_a_time() -> None:
    async def scenario() -> None:
        devices = Devices(3)
        got: list[list[int]] = []

        async def later() -> None:
            async with devices.taken(2) as mine:
                got.append(mine)

        async with devices.taken(1) as first, devices.taken(0) as none:
            assert (first, none) == ([0], [])
            async with devices.taken(1) as second:
                assert second == [1]
                waiting, given_up = (asyncio.create_task(later()) for _ in range(2))
                for _ in range(3):
                    await asyncio.sleep(0)
                assert not got
                given_up.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await given_up
            await waiting
        assert got == [[1, 2]]
        async with devices.taken(3) as every:
            assert every == [0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize(("gpus", "told"), [([], ""), ([2, 3], "2,3")])
def test_a_program_sees_those_that_it_has(tmp_path: Path, gpus: list[int], told: str) -> None:
    found = environment_of(task_pb2.Task(), Folders(tmp_path), "localhost:1", gpus)
    assert found["CUDA_VISIBLE_DEVICES"] == told


def test_a_process_sees_the_accelerators_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    see_only([2, 3])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    see_only([])  # what torch and ONNX Runtime take for none
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
