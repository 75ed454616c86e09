"""How fast a model is served, alone and through a cluster's gateway, next to its peers.

    python bench/serving.py [--seconds 2] [--rounds 3] [--peers Mosec,pytriton] [--json FILE]

The tutorial's CNN, one image a request, in a closed loop, with load generators written in C. All
of it runs on this machine. Machines drift, so what is compared takes turns, and the median of the
ratios of neighbouring turns counts. Peers are installed into environments of their own below
`.make/peers`; one that cannot be is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from tools import cnn, load, ours
from tools.peers import PEERS, MissingPeerError, Peer
from tools.target import Target, Way

ALONE, GATEWAY = "lepton serve", "gateway"
BEST = "the best"
# Kind of request, whose, how many times as often, as whom.
CLAIMS = (
    ("gRPC", ALONE, 3.0, BEST),
    ("gRPC", GATEWAY, 2.5, BEST),
    ("JSON", ALONE, 1.2, "Mosec"),
    ("JSON", GATEWAY, 1.5, "Ray behind HAProxy"),
    ("binary", ALONE, 1.0, "Mosec"),
    ("binary", GATEWAY, 1.4, "Ray behind HAProxy"),
)
MOST_P50_MS = {ALONE: 0.5, GATEWAY: 0.9}
MOST_CPU_S = {"binary": 0.08, "JSON": 0.14}
# The same figures next to Mosec's (0.08 and 0.145), which do not depend on the machine.
MOST_CPU_OF_MOSEC = {"binary": 1.0, "JSON": 0.97}
MOST_MIB, MOST_FIRST_ANSWER_S, LEAST_AT_256 = 130, 1.0, 0.9
BATCH_ROWS, LEAST_OF_ENGINE = 64, 0.85
MANY = 64
Verdict = tuple[str, float, bool]


@dataclass(frozen=True)
class Turn:
    """One measurement.

    Attributes:
        server: Whose.
        kind: Of request.
        connections: How many at once.
        beside: The peer that took turns with it; empty for none.
        load: What was seen.
    """

    server: str
    kind: str
    connections: int
    beside: str
    load: load.Load


class Bench:
    """Measures, prints and keeps.

    Args:
        model: The CNN's file.
        seconds: Of each measurement.
    """

    def __init__(self, model: Path, seconds: int) -> None:
        self.turns: list[Turn] = []
        self.seen: dict[str, float] = {}
        self._seconds = seconds
        self._expected = cnn.right_answer(model, 1).ravel()

    def take(self, target: Target, way: Way, connections: int, beside: str = "") -> None:
        one = load.run(target, way, connections, self._seconds)
        self.turns.append(Turn(target.name, way.kind, connections, beside, one))
        print(
            f"{target.name:20}{way.kind:8}{connections:>5}{one.requests_per_s:>11,.0f}"
            f"{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{one.cpu_s_per_1000:>9.3f}{one.failed:>8}",
            flush=True,
        )

    def check(self, target: Target) -> None:
        """Fail unless every way gives the engine's answer."""
        for way in target.ways:
            found = way.ask().ravel()
            name = f"{target.name} {way.kind}"
            np.testing.assert_allclose(found, self._expected, 1e-3, 1e-4, err_msg=name)

    def alone(self, own: Iterable[Target], rounds: int) -> None:
        """What needs no peer: one connection, and 256 next to 64."""
        for target in own:
            for way in target.ways:
                for _ in range(rounds):
                    for connections in (1, MANY, 256):
                        self.take(target, way, connections)

    def batches(self, target: Target, model: Path, threads: int, rounds: int) -> None:
        """Many rows in a request, next to the engine in this process."""
        way = target.ways[0].with_rows(BATCH_ROWS)
        shares: list[float] = []
        for _ in range(rounds):
            engine = cnn.in_process_rows_per_s(model, BATCH_ROWS, threads, self._seconds)
            self.take(target, way, 4)
            shares.append(self.turns[-1].load.requests_per_s * BATCH_ROWS / engine)
        self.seen["batches of 64, of the engine's rate"] = statistics.median(shares)

    def beside(self, peer: Target, own: Iterable[Target], rounds: int) -> None:
        """Turns with a peer at 64 connections, once it is as warm as Lepton is by now."""
        for theirs in peer.ways:
            load.run(peer, theirs, MANY, self._seconds)
            for _ in range(rounds):
                for target in (peer, *own):
                    way = next(way for way in target.ways if way.kind == theirs.kind)
                    self.take(target, way, MANY, peer.name)

    def loads(self, server: str, kind: str, connections: int, beside: str = "") -> list[load.Load]:
        wanted = (server, kind, connections, beside)
        return [
            turn.load
            for turn in self.turns
            if (turn.server, turn.kind, turn.connections, turn.beside) == wanted
        ]

    def peers_of(self, kind: str) -> list[str]:
        """Peers that answer this kind of request, the fastest first."""
        names = {turn.beside for turn in self.turns if turn.beside and turn.kind == kind}
        return sorted(names, key=lambda name: -median_rate(self.loads(name, kind, MANY, name)))


def median_rate(loads: list[load.Load]) -> float:
    return statistics.median(one.requests_per_s for one in loads)


def median_ratio(these: list[load.Load], those: list[load.Load]) -> float:
    """Of the rates of neighbouring turns."""
    return statistics.median(
        one.requests_per_s / other.requests_per_s for one, other in zip(these, those, strict=True)
    )


def ratio_verdicts(bench: Bench) -> Iterator[Verdict]:
    for kind, name, factor, wanted in CLAIMS:
        peers = bench.peers_of(kind)
        peer = peers[0] if wanted == BEST and peers else wanted
        if peer in peers:
            mine, its = (bench.loads(server, kind, MANY, peer) for server in (name, peer))
            ratio = median_ratio(mine, its)
            yield f"{kind}, {name} / {peer} ≥ {factor}", ratio, ratio >= factor


def own_verdicts(bench: Bench, name: str, kind: str) -> Iterator[Verdict]:
    one, many, crowd = (bench.loads(name, kind, count) for count in (1, MANY, 256))
    p50_ms = statistics.median(turn.p50_ms for turn in one)
    yield at_most(f"{kind}, {name}: p50 at 1, ms", p50_ms, MOST_P50_MS[name])
    share = median_ratio(crowd, many)
    yield f"{kind}, {name}: rate at 256 / at 64 ≥ {LEAST_AT_256}", share, share >= LEAST_AT_256
    for peer in bench.peers_of(kind)[:1]:
        mine, its = (
            statistics.median(one.p99_ms for one in bench.loads(server, kind, MANY, peer))
            for server in (name, peer)
        )
        yield at_most(f"{kind}, {name}: p99 at 64, ms, as {peer}", mine, its)
    if name == ALONE and kind in MOST_CPU_S:
        cpu_s = statistics.median(turn.cpu_s_per_1000 for turn in many)
        yield at_most(f"{kind}: CPU of 1,000 requests, s", cpu_s, MOST_CPU_S[kind])
        yield from cpu_beside_mosec(bench, kind)


def cpu_beside_mosec(bench: Bench, kind: str) -> Iterator[Verdict]:
    mine, its = (bench.loads(server, kind, MANY, "Mosec") for server in (ALONE, "Mosec"))
    if its:
        ratio = statistics.median(
            one.cpu_s_per_1000 / other.cpu_s_per_1000 for one, other in zip(mine, its, strict=True)
        )
        yield at_most(f"{kind}: CPU, {ALONE} / Mosec", ratio, MOST_CPU_OF_MOSEC[kind])


def verdicts(bench: Bench) -> list[Verdict]:
    """What was claimed, the figure, and whether it holds."""
    found = list(ratio_verdicts(bench))
    for name in (ALONE, GATEWAY):
        for kind in ("gRPC", "JSON", "binary"):
            found += own_verdicts(bench, name, kind)
    share = bench.seen["batches of 64, of the engine's rate"]
    found.append((f"batches of 64 ≥ {LEAST_OF_ENGINE}", share, share >= LEAST_OF_ENGINE))
    found.append(at_most("memory at rest, MiB", bench.seen["memory at rest, MiB"], MOST_MIB))
    found.append(at_most("first answer, s", bench.seen["first answer, s"], MOST_FIRST_ANSWER_S))
    failed = sum(turn.load.failed for turn in bench.turns if turn.server in (ALONE, GATEWAY))
    found.append(at_most("failed requests", failed, 0))
    return found


def at_most(what: str, figure: float, limit: float) -> Verdict:
    return f"{what} ≤ {limit:.3g}", figure, figure <= limit


def measure(bench: Bench, model: Path, peers: Iterable[Peer], rounds: int, threads: int) -> None:
    with (
        ours.alone(model, threads) as (single, bench.seen["first answer, s"]),
        ours.through_the_gateway(model) as gateway,
    ):
        bench.seen["memory at rest, MiB"] = single.own_pss_mib()
        bench.check(single)
        bench.check(gateway)
        bench.batches(single, model, threads, rounds)
        bench.alone((single, gateway), rounds)
        for peer in peers:
            try:
                with peer.running(model) as target:
                    bench.check(target)
                    bench.beside(target, (single, gateway), rounds)
            except MissingPeerError as error:
                print(f"{peer.name} is left out: {error}", flush=True)
        bench.check(single)
        bench.check(gateway)
        bench.seen["memory after load, MiB"] = single.own_pss_mib()


@contextmanager
def made_model() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn.onnx"
        cnn.make_cnn(model)
        yield model


def report(bench: Bench) -> list[Verdict]:
    for name, figure in bench.seen.items():
        print(f"{name:66}{figure:10.2f}")
    found = verdicts(bench)
    for what, figure, holds in found:
        print(f"{what:66}{figure:10.2f}  {'holds' if holds else 'MISSED'}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="turns at each, and with each peer")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine")
    parser.add_argument("--peers", help="names, with commas; all by default")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "h2load") if shutil.which(tool) is None]
    if missing:
        print(f"needs {', '.join(missing)}: apt-get install wrk nghttp2-client", file=sys.stderr)
        return 2
    wanted = None if options.peers is None else options.peers.split(",")
    peers = [peer for peer in PEERS if wanted is None or peer.name.split()[0] in wanted]
    columns = "{:20}{:8}{:>5}{:>11}{:>9}{:>9}{:>9}{:>8}"
    print(columns.format("server", "way", "conn", "answers/s", "p50 ms", "p99 ms", "CPU", "failed"))
    with made_model() as model:
        bench = Bench(model, options.seconds)
        measure(bench, model, peers, options.rounds, options.threads)
    found = report(bench)
    if options.json:
        turns = [asdict(turn) for turn in bench.turns]
        form = {"turns": turns, "seen": bench.seen, "verdicts": found}
        options.json.write_text(json.dumps(form, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
