"""When a checkpoint is written."""

from __future__ import annotations

from pathlib import Path

import torch

from lepton_worker.checkpoints import Checkpoints


def written(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.write(step, {}, {"w": torch.zeros(1)})
    checkpoints.finish()


def test_steps_count_from_the_last_one_and_one_is_outstanding_at_most(tmp_path: Path) -> None:
    told: list[int] = []
    checkpoints = Checkpoints(tmp_path, 3_600, 10, lambda step, _: told.append(step))
    assert [step for step in range(12) if checkpoints.is_due(step)] == [10, 11]
    written(checkpoints, 12)
    assert not checkpoints.is_due(22)  # the last one is not stored yet
    checkpoints.stored()
    assert not checkpoints.is_due(21)
    assert checkpoints.is_due(22)
    assert told == [12]


def test_time_alone_is_enough_and_without_steps_nothing_else(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, 0, 1_000, lambda *_: None).is_due(1)
    assert not Checkpoints(tmp_path, 3_600, 0, lambda *_: None).is_due(1_000_000)
