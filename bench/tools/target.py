"""A running server: where it answers, what it costs, and whether it is right."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from tools import cnn

from lepton_ai.oip.messages import MODEL_INFER, decode_infer_answer
from lepton_ai.oip.rest import JSON_LENGTH_HEADER, decode_answer

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Way:
    """One way to ask: what is sent where, and how the answer is read.

    Attributes:
        kind: "JSON", "binary" or "gRPC".
        url: Where it is sent.
        body: What is sent; for gRPC the message.
        headers: Sent with it.
        read: Reads the scores of an answer's body and headers.
    """

    kind: str
    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[bytes, Mapping[str, str]], np.ndarray] = field(
        default=lambda body, headers: np.frombuffer(body, np.float32)
    )

    def with_rows(self, rows: int) -> Way:
        """The same in binary, with that many images in a request."""
        body, length = cnn.binary_request(rows)
        headers = dict(self.headers) | {JSON_LENGTH_HEADER: str(length)}
        return Way(f"{rows} rows", self.url, body, headers, self.read)

    def ask(self) -> np.ndarray:
        """The scores of one answer.

        Raises:
            OSError: Nobody answers.
            RuntimeError: It is no answer.
        """
        if self.kind == "gRPC":
            return self._ask_grpc()
        request = urllib.request.Request(self.url, self.body, dict(self.headers))
        with urllib.request.urlopen(request, timeout=_DEADLINE_S) as response:
            named = {name.lower(): value for name, value in response.headers.items()}
            return self.read(response.read(), named)

    def _ask_grpc(self) -> np.ndarray:
        address = self.url.removeprefix("http://").partition("/")[0]
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(MODEL_INFER)
            try:
                answer = call(self.body, _DEADLINE_S, tuple(self.headers.items()))
            except grpc.RpcError as error:
                raise RuntimeError(str(error)) from None
        return decode_infer_answer(answer).array


@dataclass(frozen=True)
class Target:
    """A running server.

    Attributes:
        name: For the table.
        pids: Its processes; their children count too.
        ways: How it can be asked.
    """

    name: str
    pids: tuple[int, ...]
    ways: tuple[Way, ...]

    def cpu_s(self) -> float:
        """Processor time used so far."""
        return sum(_cpu_s(pid) for pid in self.all_pids())

    def own_pss_mib(self) -> float:
        """Memory of the processes themselves, shared pages counted by share."""
        return sum(_pss_mib(pid) for pid in self.pids)

    def resident_mib(self) -> float:
        """Memory of the processes themselves, shared pages counted in full."""
        pages = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in self.pids]
        return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def all_pids(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
        found, left = [], list(self.pids)
        while left:
            found.append(left.pop())
            left += children.get(found[-1], [])
        return list(dict.fromkeys(found))

    def wait(self, timeout_s: float) -> None:
        """Wait until every way answers."""
        deadline_s = time.monotonic() + timeout_s
        for way in self.ways:
            while True:
                try:
                    way.ask()
                    break
                except (OSError, RuntimeError, urllib.error.URLError) as error:
                    if time.monotonic() > deadline_s:
                        raise RuntimeError(f"{self.name} {way.kind}: {error}") from None
                    time.sleep(0.02)


def oip_ways(
    rest: str, grpc_address: str, headers: Mapping[str, str] | None = None, version: str = ""
) -> tuple[Way, ...]:
    """The three ways of the Open Inference Protocol; those without an address are left out."""
    more = dict(headers or {})
    body, length = cnn.binary_request(1)
    url = f"http://{rest}/v2/models/{cnn.MODEL}{version}/infer"
    binary = more | {JSON_LENGTH_HEADER: str(length), "content-type": "application/octet-stream"}
    as_json = more | {"content-type": "application/json"}
    ways = []
    if rest:
        ways.append(Way("binary", url, body, binary, _oip_scores))
        ways.append(Way("JSON", url, cnn.json_request(), as_json, _oip_scores))
    if grpc_address:
        ways.append(Way("gRPC", f"http://{grpc_address}{MODEL_INFER}", cnn.grpc_message(), more))
    return tuple(ways)


def json_scores(body: bytes, headers: Mapping[str, str]) -> np.ndarray:
    return np.array(json.loads(body)["outputs"][0]["data"], np.float32)


def json_array(body: bytes, headers: Mapping[str, str]) -> np.ndarray:
    return np.array(json.loads(body), np.float32)


def _oip_scores(body: bytes, headers: Mapping[str, str]) -> np.ndarray:
    length = headers.get(JSON_LENGTH_HEADER)
    return decode_answer(body, int(length) if length else None).outputs[0].array


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _pss_mib(pid: int) -> float:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
