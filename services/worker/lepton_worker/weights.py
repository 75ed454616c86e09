"""How a rank that joins gets weights from a peer: safetensors over HTTP, never pickle.

The address of a rank's weights holds 256 random bits and is told to peers through the job's
quorum only, so that knowing it is the permission to read.
"""

from __future__ import annotations

import secrets
import threading
import urllib.request
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from torchft.checkpointing import CheckpointTransport

from lepton_ai.learn.files import ModelFile, from_bytes, to_bytes

__all__ = ["WeightsTransport", "pack", "unpack"]

_HEADER = "joining"
_PATIENCE_S = 10.0
_SILENT_S = 10
_MAX_BYTES = 64 * 1024**3


class WeightsTransport(CheckpointTransport[dict[str, Any]]):
    """torchft's checkpoint transport over one small server a rank.

    What is served is a copy, so that training goes on while a peer reads.

    Args:
        bind: Address to listen on.
        host: How peers reach it.
    """

    def __init__(self, bind: str, host: str) -> None:
        self._secret = secrets.token_urlsafe(32)
        self._offered: tuple[int, bytes] = (-1, b"")
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer((bind, 0), self._handler())
        self._server.daemon_threads = True
        self._address = f"http://{host}:{self._server.server_port}/{self._secret}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def metadata(self) -> str:
        """Where a peer finds this rank's weights."""
        return self._address

    def send_checkpoint(
        self, dst_ranks: list[int], step: int, state_dict: dict[str, Any], timeout: timedelta
    ) -> None:
        """Offer the weights of `step` to whoever joins."""
        with self._changed:
            self._offered = (step, pack(state_dict))
            self._changed.notify_all()

    def recv_checkpoint(
        self, src_rank: int, metadata: str, step: int, timeout: timedelta
    ) -> dict[str, Any]:
        """Fetch the weights of `step` from a peer, which may be about to offer them."""
        url = f"{metadata}/{step}"
        with urllib.request.urlopen(url, timeout=timeout.total_seconds()) as answer:  # noqa: S310
            return unpack(answer.read(_MAX_BYTES))

    def shutdown(self, wait: bool = True) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _content(self, step: int, timeout_s: float) -> bytes | None:
        with self._changed:
            there = self._changed.wait_for(lambda: self._offered[0] == step, timeout_s)
            return self._offered[1] if there else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        transport = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SILENT_S

            def do_GET(self) -> None:
                _, secret, step = (*self.path.split("/"), "", "", "")[:3]
                known = secrets.compare_digest(secret, transport._secret)  # pyright: ignore[reportPrivateUsage]
                content = None
                if known and step.isdigit():
                    content = transport._content(int(step), _PATIENCE_S)  # pyright: ignore[reportPrivateUsage]
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the address is a secret."""

        return Handler


def pack(state: dict[str, Any]) -> bytes:
    """A manager's state as safetensors: `Rank.state` under ``user``, torchft's own beside it."""
    mine = state["user"]["default"]
    header = {"steps_done": mine["steps_done"], "history": mine["history"]}
    return to_bytes(ModelFile({_HEADER: header | {"torchft": state["torchft"]}}, mine["tensors"]))


def unpack(content: bytes) -> dict[str, Any]:
    """What `pack` packed.

    Raises:
        DataCorruptError: It is something else.
    """
    file = from_bytes(content)
    header = file.header[_HEADER]
    mine = {
        "tensors": dict(file.tensors),
        "steps_done": header["steps_done"],
        "history": header["history"],
    }
    return {"user": {"default": mine}, "torchft": header["torchft"]}
