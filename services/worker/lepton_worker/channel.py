"""Where a child's messages to its agent go: the real standard output, out of reach of `print`."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, BinaryIO

import orjson

__all__ = ["AgentChannel"]


class AgentChannel:
    """Messages from and to the agent, one JSON object a line.

    Whatever else writes to standard output goes to standard error from now on.
    """

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._telling = threading.Lock()

    def tell(self, event: str, **fields: Any) -> None:
        """Send one message; from any thread."""
        with self._telling:
            self._out.write(orjson.dumps({"event": event, **fields}) + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """The next message, or None when the agent is gone."""
        line = sys.stdin.buffer.readline()
        return orjson.loads(line) if line else None
