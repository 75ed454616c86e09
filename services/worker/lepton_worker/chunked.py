"""A stored object that a trainer reads without having it: its chunks come as they are needed."""

from __future__ import annotations

import mmap
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from lepton_ai.errors import UnavailableError

__all__ = ["ChunkedFile"]

_WAIT_S = 120.0


class ChunkedFile:
    """Bytes of an object. The agent is asked for chunks; `came` and `failed` are its answers.

    Args:
        size_bytes: Of the object.
        chunk_bytes: Of each chunk but the last.
        keep: How many chunks stay open; the system keeps in memory what it has room for.
        ask: Asks for chunks, by their numbers; from any thread.
        wait_s: How long a chunk may take.
    """

    def __init__(
        self,
        size_bytes: int,
        chunk_bytes: int,
        keep: int,
        ask: Callable[[list[int]], None],
        wait_s: float = _WAIT_S,
    ) -> None:
        self.size_bytes = size_bytes
        self._chunk_bytes = chunk_bytes
        self._keep = keep
        self._ask = ask
        self._wait_s = wait_s
        self._open: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._asked: set[int] = set()
        self._failures: dict[int, str] = {}
        self._changed = threading.Condition()

    def came(self, number: int, path: Path) -> None:
        """A chunk is in a file, which may lose its name from now on."""
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with self._changed:
            self._asked.discard(number)
            self._open[number] = content
            while len(self._open) > self._keep:
                self._open.popitem(last=False)
            self._changed.notify_all()

    def failed(self, number: int, reason: str) -> None:
        """A chunk cannot be had; who waits for it is told, and it may be asked for again."""
        with self._changed:
            self._asked.discard(number)
            self._failures[number] = reason
            self._changed.notify_all()

    def prefetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Ask for what bytes from start up to stop need, and do not wait."""
        self._want({number for span in spans for number in self._numbers(*span)})

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`.

        Raises:
            UnavailableError: The agent cannot get them.
        """
        parts: list[bytes] = []
        for number in self._numbers(start, stop):
            begin = number * self._chunk_bytes
            chunk = self._chunk(number)
            parts.append(chunk[max(start - begin, 0) : stop - begin])
        return b"".join(parts)

    def _numbers(self, start: int, stop: int) -> range:
        return range(start // self._chunk_bytes, -(-stop // self._chunk_bytes))

    def _want(self, numbers: set[int]) -> None:
        with self._changed:
            fresh = sorted(numbers - self._asked - self._open.keys())
            self._asked.update(fresh)
        if fresh:
            self._ask(fresh)

    def _chunk(self, number: int) -> mmap.mmap:
        deadline = time.monotonic() + self._wait_s
        while time.monotonic() < deadline:
            self._want({number})
            with self._changed:
                self._changed.wait_for(lambda: number not in self._asked, self._wait_s)
                # Others that came may have pushed it out already: then it is asked for again.
                if number in self._open:
                    self._open.move_to_end(number)
                    return self._open[number]
                if number in self._failures:
                    raise _unavailable(self._failures.pop(number))
        raise _unavailable("the agent is silent")


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"a part of the dataset cannot be had: {reason}", hint="are the storage nodes up?"
    )
