"""What is said of a program that ended."""

from __future__ import annotations

import signal

import pytest

from lepton_worker.scripts import ending

TRACEBACK = "Traceback (most recent call last):\nOops"


@pytest.mark.parametrize(
    ("code", "reason", "user_error"),
    [
        (3, f"rank 2 ended with exit status 3:\n{TRACEBACK}", True),
        (-signal.SIGKILL, "rank 2 was killed (SIGKILL)", False),
        (
            -signal.SIGSEGV,
            "rank 2 crashed (SIGSEGV):\nTraceback (most recent call last):\nOops",
            True,
        ),
    ],
)
def test_whose_fault_it_was(code: int, reason: str, user_error: bool) -> None:
    lines = ["begins", *TRACEBACK.splitlines()]
    status = ending(2, code, lines)
    assert status is not None
    assert (status.reason, status.user_error) == (reason, user_error)


def test_a_good_end_says_nothing() -> None:
    assert ending(0, 0, ["Traceback (most recent call last):"]) is None
