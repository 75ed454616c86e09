"""Where a child's messages to its agent go: the real standard output, out of reach of `print`."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, BinaryIO

import orjson

__all__ = ["AgentChannel"]


class AgentChannel:
    """Messages from and to the agent, one JSON object a line.

    Whatever else writes to standard output goes to standard error from now on.
    """

    def __init__(self) -> None:
        self._in: BinaryIO
        self._out: BinaryIO
        self._open()
        self._also: list[BinaryIO] = []
        self._telling = threading.Lock()

    def tell(self, event: str, **fields: Any) -> None:
        """Send one message; from any thread."""
        with self._telling:
            self._out.write(orjson.dumps({"event": event, **fields}) + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """The next message, or None when the agent is gone."""
        line = self._in.readline()
        for other in self._also:
            with contextlib.suppress(BrokenPipeError):  # it has ended; who started it will see
                other.write(line)
        return orjson.loads(line) if line else None

    def pass_on(self, other: BinaryIO) -> None:
        """Let another process, to which this is open, hear all that is heard from now on."""
        self._also.append(other)

    def reopen(self) -> None:
        """Go on over what standard input and output are now; what was heard in part is dropped."""
        self._in.close()
        self._out.close()
        self._open()

    def _open(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
