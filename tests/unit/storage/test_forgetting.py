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
from lepton_ai.proto.v1.storage_pb2 import Dataset, DatasetOrigin, Model, Split
from lepton_ai.proto.v1.task_pb2 import Shard
from lepton_runtime import keys
from lepton_runtime.state import Write


def test_what_nothing_names_goes_when_it_is_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            ids = [(await nodes.put(bytes([number]))).id for number in range(6)]
            data, onnx, weights, checkpoint, lineage, nothing = ids
            model = Model(onnx_object=onnx, weights_object=weights, dataset_object=lineage)
            kept = Checkpoints(newest_first=[Checkpoint(object_id=checkpoint)])
            origin = DatasetOrigin(dataset_object=lineage)
            dataset = Dataset(splits=[Split(object_id=data)], origin=origin)
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
def test_what_a_job_left_on_its_way_goes_once_it_has_ended(tmp_path: Path, state: JobState) -> None:
    async def scenario() -> None:
        async with nodes_of(tmp_path) as nodes:
            stored, piece = [(await nodes.put(content)).id for content in (b"weights", b"piece")]
            kept = Checkpoints(newest_first=[Checkpoint(object_id=stored)])
            shards = [Shard(result_object=piece), Shard(task_id="j-r0")]
            await nodes.state.commit(
                [],
                [Write(keys.shard("j", i), s.SerializeToString()) for i, s in enumerate(shards)],
            )
            running = Job(state=JOB_STATE_RUNNING)
            await nodes.state.commit([], [Write(keys.job("j"), running.SerializeToString())])
            written = Write(keys.checkpoints("j"), kept.SerializeToString())
            await nodes.state.commit([], [written])
            await nodes.heal()
            await nodes.stores["a"].stat(stored)
            await nodes.stores["a"].stat(piece)
            ended = Job(state=state)
            await nodes.state.commit([], [Write(keys.job("j"), ended.SerializeToString())])
            await nodes.heal()
            assert await nodes.state.get(keys.checkpoints("j")) is None
            assert not (await nodes.state.list(keys.SHARDS)).records
            for gone in (stored, piece):
                with pytest.raises(NotFoundError):
                    await nodes.stores["a"].stat(gone)

    asyncio.run(scenario())
