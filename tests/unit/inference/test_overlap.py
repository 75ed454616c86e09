"""One thread or two: what the process gets of the processors decides."""

from __future__ import annotations

from lepton_worker.inference.overlap import Overlap

WINDOW_NS = 100_000_000


class Process:
    """A process that gets a share of the processors, window after window."""

    def __init__(self) -> None:
        self.now_ns = self.cpu_ns = 0
        self.overlap = Overlap(0, 0)

    def runs(self, processors: float, windows: int = 1, requests: int = 8) -> bool:
        for _ in range(windows):
            self.now_ns += WINDOW_NS
            self.cpu_ns += round(processors * WINDOW_NS)
            self.overlap.observe(self.now_ns, requests, lambda: self.cpu_ns)
        return self.overlap.pays


def test_an_idle_process_needs_no_second_thread() -> None:
    assert not Process().runs(0.5, windows=100)


def test_nothing_can_be_read_meanwhile_where_each_waits_for_the_one_before() -> None:
    assert not Process().runs(0.95, windows=100, requests=1)


def test_a_busy_one_tries_and_keeps_what_helps() -> None:
    process = Process()
    assert process.runs(0.95)
    assert process.runs(1.4, windows=100)


def test_what_does_not_help_is_not_tried_again_for_a_while() -> None:
    process = Process()
    assert process.runs(0.95)
    assert not process.runs(1.05)
    assert not process.runs(0.95, windows=9)
    assert process.runs(0.95)


def test_one_bad_moment_does_not_decide() -> None:
    process = Process()
    assert process.runs(0.95)
    assert process.runs(1.4, windows=10)
    assert process.runs(1.0)
    assert process.runs(1.4)
    assert not process.runs(1.0, windows=10)


def test_it_ends_when_the_load_does() -> None:
    process = Process()
    assert process.runs(0.95)
    assert process.runs(1.4)
    assert not process.runs(0.2)


def test_a_window_is_looked_at_when_it_is_over() -> None:
    overlap = Overlap(0, 0)
    overlap.observe(WINDOW_NS - 1, 8, lambda: 1 // 0)
    overlap.observe(WINDOW_NS, 8, lambda: WINDOW_NS)
    assert overlap.pays
