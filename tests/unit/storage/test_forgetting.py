"""Objects that nothing names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from storage_nodes import UNNAMED_AGE_S, nodes_of

from lepton_ai.errors import NotFoundError
from lepton_ai.proto.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Checkpoint,
    Checkpoints,
    Job,
    JobState,
)
from lepton_ai.proto.v1.storage_pb2 import Dataset, Model, Split
from lepton_runtime import keys
from lepton_runtime.state import Write


def test_what_nothing_names_goes_when_it_is_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            ids = [(await nodes.put(bytes([number]))).id for number in range(6)]
            data, onnx, weights, checkpoint, lineage, nothing = ids
            model = Model(onnx_object=onnx, weights_object=weights, dataset_object=lineage)
            kept = Checkpoints(newest_first=[Checkpoint(object_id=checkpoint)])
            dataset = Dataset(splits=[Split(object_id=data)])
            naming = [
                Write(keys.model("m", 1), model.SerializeToString()),
                Write(keys.checkpoints("j"), kept.SerializeToString()),
                Write(keys.job("j"), Job(state=JOB_STATE_RUNNING).SerializeToString()),
                Write(keys.dataset("d", 1), dataset.SerializeToString()),
            ]
            await nodes.state.commit([], naming)
            await nodes.clock.advance(UNNAMED_AGE_S)
            await nodes.heal()
            assert len((await nodes.state.list(keys.OBJECTS)).records) == 6
            await nodes.put(bytes([5]))  # storing it again makes it young
            await nodes.clock.advance(100)
            await nodes.heal()
            with pytest.raises(NotFoundError):
                await nodes.stores["a"].stat(lineage)
            await nodes.stores["a"].stat(nothing)
            await nodes.clock.advance(UNNAMED_AGE_S)
            await nodes.heal()
            left = {record.key for record in (await nodes.state.list(keys.OBJECTS)).records}
            assert left == {keys.object_(each) for each in (data, onnx, weights, checkpoint)}

    asyncio.run(scenario())


@pytest.mark.parametrize("state", [JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED])
def test_checkpoints_go_once_their_job_has_ended(tmp_path: Path, state: JobState) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored = (await nodes.put(b"weights")).id
            kept = Checkpoints(newest_first=[Checkpoint(object_id=stored)])
            running = Job(state=JOB_STATE_RUNNING)
            await nodes.state.commit([], [Write(keys.job("j"), running.SerializeToString())])
            written = Write(keys.checkpoints("j"), kept.SerializeToString())
            await nodes.state.commit([], [written])
            await nodes.heal()
            await nodes.stores["a"].stat(stored)
            ended = Job(state=state)
            await nodes.state.commit([], [Write(keys.job("j"), ended.SerializeToString())])
            await nodes.heal()
            assert await nodes.state.get(keys.checkpoints("j")) is None
            with pytest.raises(NotFoundError):
                await nodes.stores["a"].stat(stored)

    asyncio.run(scenario())
