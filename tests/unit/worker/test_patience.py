"""What is tried again, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from lepton_ai.errors import InvalidArgumentError, LeptonError, UnavailableError
from lepton_worker import patience
from lepton_worker.patience import patiently


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_RETRY_S", 0.0)


class Storage:
    """Answers after it has failed with each of some errors."""

    def __init__(self, *errors: LeptonError) -> None:
        self.errors = list(errors)

    async def ask(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_who_is_away_is_asked_again() -> None:
    storage = Storage(UnavailableError("away"), UnavailableError("away"))
    assert asyncio.run(patiently(storage.ask)) == "answer"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PATIENCE_S", -1.0)
    with pytest.raises(UnavailableError):
        asyncio.run(patiently(Storage(UnavailableError("away")).ask))


def test_a_refusal_is_an_answer() -> None:
    storage = Storage(InvalidArgumentError("no"), UnavailableError("away"))
    with pytest.raises(InvalidArgumentError):
        asyncio.run(patiently(storage.ask))
    assert len(storage.errors) == 1
