"""When a trainer counts as stalled."""

from __future__ import annotations

from lepton_worker.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_is_a_stall_when_it_is_far_longer_than_those_before() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += 1_000
    assert not pace.stalled_s  # it is not ready yet
    pace.begin()
    clock.now += 60
    assert not pace.stalled_s  # the first step takes its time
    assert pace.step()
    clock.now += 15
    assert not pace.stalled_s
    clock.now += 1
    assert pace.stalled_s == 16
    assert not pace.step()  # it was slow, not stuck
    clock.now += 60
    assert not pace.stalled_s
    clock.now += 5
    assert pace.stalled_s == 65


def test_a_trainer_that_never_steps_or_has_none_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    clock.now += 121
    assert pace.stalled_s == 121
    pace.end()
    assert not pace.stalled_s
    assert not pace.has_begun
