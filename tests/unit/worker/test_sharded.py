"""A split that is read chunk by chunk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_ai import Sequential
from lepton_ai.errors import DataError, UnavailableError
from lepton_ai.learn.batches import BatchPlan, rank_rows
from lepton_ai.preprocessing import MinMaxScaler
from lepton_ai.splits import arrays_to_split
from lepton_worker import training_data
from lepton_worker.chunked import ChunkedFile
from lepton_worker.sharded import Table
from lepton_worker.training_data import open_data
from lepton_worker.work import RankWork

CHUNK = 4096
ROWS = 5_000


class Stored:
    """A split cut into chunks, which come as they are asked for."""

    def __init__(self, folder: Path, arrays: dict[str, np.ndarray], keep: int = 100) -> None:
        self.content = arrays_to_split("train", arrays)[1]
        self.folder = folder
        self.asked: list[int] = []
        self.lost: set[int] = set()
        self.file = ChunkedFile(len(self.content), CHUNK, keep, self.ask, wait_s=5)

    def ask(self, numbers: list[int]) -> None:
        self.asked += numbers
        for number in numbers:
            if number in self.lost:
                self.file.failed(number, "all storage nodes are down")
                continue
            path = self.folder / str(number)
            path.write_bytes(self.content[number * CHUNK : (number + 1) * CHUNK])
            self.file.came(number, path)
            path.unlink()


def arrays() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(1)
    x = chance.normal(size=(ROWS, 13)).astype(np.float32)  # rows lie across edges of chunks
    return {"x": x, "y": chance.integers(0, 3, ROWS)}


def work(**changes: object) -> RankWork:
    model = Sequential((13,), [("dense", {"units": 3, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    fields = {name: None for name in RankWork.__dataclass_fields__} | {
        "config": json.dumps(model.to_config()),
        "training": "",
        "validation": "",
        "validation_fraction": 0.0,
        "window_bytes": 10 * CHUNK,
        "batch_size": 50,
        "seed": 1,
        "shuffle": True,
    }
    return RankWork(**(fields | changes))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "CHUNK_BYTES", CHUNK)


def test_any_row_comes_back(tmp_path: Path) -> None:
    held = arrays() | {"text": np.array([f"text {n}" for n in range(ROWS)])}
    stored = Stored(tmp_path, held, keep=2)
    table = Table(stored.file)
    chance = np.random.default_rng(2)
    for _ in range(20):
        rows = np.sort(chance.integers(0, ROWS, 30))
        for name, whole in held.items():
            assert np.array_equal(table.take(name, rows), whole[rows])


def test_samples_are_those_of_the_arrays_and_each_is_seen_once(tmp_path: Path) -> None:
    held = arrays()
    opened = open_data(work(), Stored(tmp_path, held).file)
    plan = opened.plan
    assert plan.windows is not None
    seen = []
    for step in range(plan.steps_per_epoch):
        batch = plan.indices(step)
        inputs, targets = opened.samples.take(torch.from_numpy(batch))
        assert np.array_equal(inputs.numpy(), held["x"][batch])
        assert np.array_equal(targets.numpy(), held["y"][batch])
        seen += batch.tolist()
    assert sorted(seen) == list(range(ROWS))


def test_a_rank_asks_for_its_share_and_ahead_of_time(tmp_path: Path) -> None:
    chunks = 32  # of a window: eight blocks
    stored = Stored(tmp_path, arrays())
    opened = open_data(work(window_bytes=chunks * CHUNK), stored.file)
    assert opened.plan.windows is not None
    steps = opened.plan.windows.size // 50
    stored.asked.clear()
    for step in range(steps):
        batch = opened.plan.indices(step)
        mine = rank_rows(len(batch), 0, 4)
        opened.samples.prefetch(batch[mine.start : mine.stop])
    # Two blocks, or what is left of one and all of two: each begins within a chunk.
    assert chunks / 4 <= len(set(stored.asked)) <= chunks / 4 + 7
    before = list(stored.asked)
    opened.samples.take(torch.from_numpy(opened.plan.indices(0)[:12]))
    inputs = [number for number in stored.asked[len(before) :] if number not in set(before)]
    assert len(set(inputs)) <= 12  # labels alone: inputs were there


def test_validation_is_the_last_share(tmp_path: Path) -> None:
    held = arrays()
    opened = open_data(work(validation_fraction=0.1), Stored(tmp_path, held).file)
    assert len(opened.samples) == ROWS - 500
    assert opened.validation is not None
    assert np.array_equal(opened.validation.inputs.numpy(), held["x"][-500:])


def test_what_learns_from_all_samples_gets_them(tmp_path: Path) -> None:
    model = Sequential(
        (13,), [("dense", {"units": 3, "activation": "softmax"})], preprocessing=[MinMaxScaler()]
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    config = json.dumps(model.to_config())
    opened = open_data(work(config=config), Stored(tmp_path, arrays()).file)
    assert all(step.fitted for step in opened.config.preprocessing)
    assert opened.plan == BatchPlan(ROWS, 50, 1)


def test_what_cannot_be_had_is_told_and_may_be_asked_for_again(tmp_path: Path) -> None:
    stored = Stored(tmp_path, arrays())
    table = Table(stored.file)
    stored.lost = {3}
    with pytest.raises(UnavailableError, match="all storage nodes are down"):
        table.column("y")
    stored.lost = set()
    assert len(table.column("y")) == ROWS


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="x and y"):
        open_data(work(), Stored(tmp_path, {"x": np.zeros((9, 13), np.float32)}).file)
