from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch

from lepton_ai.errors import DataCorruptError
from lepton_worker.weights import WeightsTransport, pack, unpack

PATIENCE = timedelta(seconds=5)


def _state(value: float) -> dict[str, Any]:
    tensors = {"a.weight": torch.full((2, 3), value), "~optimizer.step": torch.tensor(7)}
    mine = {"tensors": tensors, "steps_done": 7, "history": {"epochs": [{"loss": 0.5}]}}
    return {"user": {"default": mine}, "torchft": {"step": 7, "batches_committed": 14}}


@pytest.fixture
def transport() -> Iterator[WeightsTransport]:
    transport = WeightsTransport("127.0.0.1", "127.0.0.1")
    yield transport
    transport.shutdown()


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    mine, theirs = one["user"]["default"], other["user"]["default"]
    tensors = mine.pop("tensors"), theirs.pop("tensors")
    return one == other and all(torch.equal(tensors[0][k], tensors[1][k]) for k in tensors[0])


def test_a_peer_reads_what_was_offered(transport: WeightsTransport) -> None:
    transport.send_checkpoint([1], 7, _state(1.5), PATIENCE)
    read = transport.recv_checkpoint(0, transport.metadata(), 7, PATIENCE)
    assert _same(read, _state(1.5))


def test_what_is_offered_is_a_copy(transport: WeightsTransport) -> None:
    state = _state(1.0)
    transport.send_checkpoint([1], 7, state, PATIENCE)
    state["user"]["default"]["tensors"]["a.weight"].add_(1)
    read = transport.recv_checkpoint(0, transport.metadata(), 7, PATIENCE)
    assert _same(read, _state(1.0))


def test_without_the_secret_nothing_is_told(transport: WeightsTransport) -> None:
    transport.send_checkpoint([1], 7, _state(1.0), PATIENCE)
    stranger = transport.metadata().rsplit("/", 1)[0] + "/guess"
    with pytest.raises(urllib.error.HTTPError) as refused:
        transport.recv_checkpoint(0, stranger, 7, PATIENCE)
    assert refused.value.code == 404
    refused.value.close()


def test_bytes_of_something_else_are_refused() -> None:
    assert _same(unpack(pack(_state(2.0))), _state(2.0))
    with pytest.raises(DataCorruptError):
        unpack(b"\x80\x04K\x01.")
