"""How long ranks wait for each other."""

from __future__ import annotations

import pytest

from lepton_worker.lateness import Lateness


def after(*steps_s: float) -> Lateness:
    lateness = Lateness()
    for step_s in steps_s:
        lateness.step_taken(step_s)
    return lateness


@pytest.mark.parametrize(
    ("steps_s", "limit_s"),
    [
        ((), 5.0),
        ((0.02,) * 20, 5.0),
        ((3.0,) * 20 + (0.02,), 1.0),
        ((0.02,) * 100, 1.0),
        ((0.2,) * 100, 2.0),
        ((0.02,) * 100 + (30.0,), 5.0),
        ((0.02,) * 100 + (0.3,), 3.0),
        ((0.02,) * 100 + (30.0,) + (0.02,) * 50, 3.025),
    ],
)
def test_the_limit_follows_the_pace_within_bounds(
    steps_s: tuple[float, ...], limit_s: float
) -> None:
    assert after(*steps_s).limit_s == pytest.approx(limit_s, rel=1e-3)


def test_each_failure_doubles_it_until_a_step_counts() -> None:
    lateness = after(*(0.02,) * 100)
    limits: list[float] = []
    for _ in range(8):
        lateness.step_failed()
        limits.append(lateness.limit_s)
    assert limits == [2, 4, 8, 16, 32, 60, 60, 60]
    lateness.step_taken(0.02)
    assert lateness.limit_s == 1.0
