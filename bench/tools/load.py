"""Closed-loop load by generators written in C: `wrk` for HTTP/1.1, `h2load` for gRPC."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tools import cnn
from tools.target import Target, Way

WRK_SCRIPT = """
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load generator saw.

    Attributes:
        requests_per_s: Answers a second.
        p50_ms: Median time of a request.
        p99_ms: 99th percentile.
        cpu_s_per_1000: Processor time of the server for 1,000 requests.
        failed: Requests without a good answer.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    failed: int


def run(target: Target, way: Way, connections: int, seconds: int) -> Load:
    """Ask one way in a closed loop."""
    with tempfile.TemporaryDirectory() as folder:
        generator = _h2load if way.kind == "gRPC" else _wrk
        return generator(target, way, connections, seconds, Path(folder))


def _wrk(target: Target, way: Way, connections: int, seconds: int, folder: Path) -> Load:
    script, body, headers = folder / "post.lua", folder / "body", folder / "headers"
    script.write_text(WRK_SCRIPT)
    body.write_bytes(way.body)
    headers.write_text("".join(f"{name}: {value}\n" for name, value in way.headers.items()))
    before_s = target.cpu_s()
    output = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), way.url],
        env=os.environ | {"BENCH_BODY": str(body), "BENCH_HEADERS": str(headers)},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
    ).stdout
    used_s = target.cpu_s() - before_s
    found = re.search(r"^RESULT (\S+) (\S+) (\S+) (\S+) (\S+)$", output, re.MULTILINE)
    assert found, output
    count, duration_us, p50_us, p99_us, failed = (float(text) for text in found.groups())
    rate = count / duration_us * 1e6
    return Load(rate, p50_us / 1e3, p99_us / 1e3, used_s / max(count, 1) * 1e3, int(failed))


def _h2load(target: Target, way: Way, connections: int, seconds: int, folder: Path) -> Load:
    body, log = folder / "body", folder / "log"
    body.write_bytes(cnn.framed(way.body))
    named = {"content-type": "application/grpc", "te": "trailers", **way.headers}
    headers = [part for name, value in named.items() for part in ("-H", f"{name}: {value}")]
    before_s = target.cpu_s()
    output = subprocess.run(
        [
            *("h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "--warm-up-time=1"),
            *("-d", str(body), f"--log-file={log}", *headers, way.url),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
    ).stdout
    used_s = target.cpu_s() - before_s
    entries = [line.split("\t") for line in log.read_text().splitlines()]
    durations_ms = np.array([int(duration_us) for _, _, duration_us in entries]) / 1e3
    rate = re.search(r"finished in .*, (\S+) req/s", output)
    data = re.search(r"traffic: .* \((\d+)\) data", output)
    assert rate
    assert data, output
    failed = sum(status != "200" for _, status, _ in entries)
    # A failed call has status 200 too, but nothing in its body.
    answer_bytes = int(data[1]) / max(len(entries), 1)
    if answer_bytes < 4 * 10:
        failed = len(entries)
    return Load(
        float(rate[1]),
        float(np.percentile(durations_ms, 50)),
        float(np.percentile(durations_ms, 99)),
        used_s / (len(entries) * (seconds + 1) / seconds) * 1e3,
        failed,
    )
