"""Serves an exported model as a process of its own, and asks it by HTTP."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANSWER_WITHIN_S = 30
STOP_WITHIN_S = 20
BATCH = 64
DATATYPES = {"f": "FP32", "u": "UINT8", "i": "INT64", "U": "BYTES"}


class Endpoint:
    """A served model."""

    def __init__(self, url: str) -> None:
        self.url = url

    def predict(self, x: Any) -> list[float]:
        """The outputs for an array of samples, one after another."""
        batches = (x[start : start + BATCH] for start in range(0, len(x), BATCH))
        return [value for batch in batches for value in self._ask(batch)]

    def _ask(self, batch: Any) -> list[float]:
        tensor = {
            "name": "input",
            "datatype": DATATYPES[batch.dtype.kind],
            "shape": list(batch.shape),
            "data": batch.ravel().tolist(),
        }
        body = json.dumps({"inputs": [tensor]}).encode()
        with urllib.request.urlopen(self.url, data=body, timeout=ANSWER_WITHIN_S) as answer:
            return json.load(answer)["outputs"][0]["data"]


@contextmanager
def served(name: str, path: Path) -> Generator[Endpoint]:
    """An endpoint for the model at `path`, for as long as the block runs."""
    command = [sys.executable, "-m", "lepton_worker.inference"]
    options = ["--model", f"{name}={path}", "--http", "127.0.0.1:0"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
        try:
            yield Endpoint(f"http://{_address(server.stderr)}/v2/models/{name}/infer")
        finally:
            server.terminate()
            server.communicate(timeout=STOP_WITHIN_S)


def _address(log: Any) -> str:
    lines: Sequence[str] = []
    for line in log:
        lines = [*lines, line]
        if "listening on " in line:
            return line.split("listening on ")[1].strip()
    raise RuntimeError("".join(lines))
