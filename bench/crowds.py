"""What a crowd does to the inference server: of models in its memory, and of requests.

    python bench/crowds.py [--seconds 3]

A hundred models of which less than half fit into memory are asked for in turn, beside one that is
asked all the time. Then three times as many requests come as can be answered. All of it runs on
this machine, the load generators too: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from tools import cnn, load, ours
from tools.target import Target, Way

MANY_MODELS = 100
MANY_MEMORY_MIB = 40  # Of the hundred MiB that they would take together.
COLD_REQUESTS_PER_S = 10
OVERLOAD = 3  # Times what the server can answer.
OVERLOAD_CONNECTIONS = 200


def many_models(seconds: int) -> dict[str, float]:
    """A hot model while 99 others, which do not fit beside it, are asked for in turn."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn.onnx"
        cnn.make_cnn(model)
        cold = [f"cold{number}" for number in range(1, MANY_MODELS)]
        others = [f"{name}={model}" for name in cold]
        limit = f"--model-memory-mib={MANY_MEMORY_MIB}"
        with ours.alone(model, 1) as (server, _):
            load.run(server, server.ways[0], 8, 1)
            empty_mib = server.resident_mib()
        with ours.alone(model, 1, limit, *others) as (server, _):
            alone = load.run(server, server.ways[0], 8, seconds)
            with asking_in_turn(server, cold) as answered:
                beside = load.run(server, server.ways[0], 8, seconds)
            many_mib = server.resident_mib()
    if alone.failed or beside.failed or not answered:
        raise SystemExit("a request failed")
    return {
        "many_models_loads_per_s": len(answered) / seconds,
        "many_models_hot_p99_alone_ms": alone.p99_ms,
        "many_models_hot_p99_beside_loads_ms": beside.p99_ms,
        "many_models_memory_of_its_limit": (many_mib - empty_mib) / MANY_MEMORY_MIB,
    }


@contextmanager
def asking_in_turn(server: Target, models: list[str]) -> Iterator[list[str]]:
    """Asks for one model after another in the background; gives those that answered."""
    answered: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        way = server.ways[0]
        for model in itertools.cycle(models):
            if stop.wait(1 / COLD_REQUESTS_PER_S):
                return
            replace(way, url=way.url.replace(f"/{cnn.MODEL}/", f"/{model}/")).ask()
            answered.append(model)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join()


def make_slow(path: Path) -> None:
    """A model that computes for a few milliseconds: two wide matrices."""
    rng = np.random.default_rng(7)
    shapes = {"w1": (784, 2048), "w2": (2048, 2048), "w3": (2048, 10)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["h2"]),
        helper.make_node("MatMul", ["h2", "w3"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *cnn.IMAGE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "slow", [image], [logits], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


def overload(seconds: int) -> dict[str, float]:
    """Three times what a model can answer, whether or not it answers."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "slow.onnx"
        make_slow(model)
        options = (f"--set={cnn.MODEL}.max_batch_size=1", f"--set={cnn.MODEL}.queue_capacity=16")
        with ours.alone(model, 1, *options) as (server, _):
            way = server.ways[0]
            capacity = load.run(server, way, 4, seconds).requests_per_s
            before_mib = server.resident_mib()
            answers = asyncio.run(ask_steadily(way, OVERLOAD * capacity, seconds))
            after_mib = server.resident_mib()
            again = load.run(server, way, 4, 2).requests_per_s
    refusals_ms = [took_s * 1000 for status, took_s in answers if status == 429]
    answered = sum(status == 200 for status, _ in answers)
    if answered + len(refusals_ms) != len(answers):
        raise SystemExit(f"other answers than 200 and 429: {Counter(s for s, _ in answers)}")
    return {
        "overload_asked_of_capacity": len(answers) / seconds / capacity,
        "overload_goodput_of_capacity": answered / seconds / capacity,
        "overload_refusal_p99_ms": float(np.percentile(refusals_ms, 99)),
        "overload_memory_growth_mib": after_mib - before_mib,
        "overload_afterwards_of_capacity": again / capacity,
    }


async def ask_steadily(way: Way, per_s: float, seconds: int) -> list[tuple[int, float]]:
    """Status and seconds of requests that are sent at a rate, on connections that are kept."""
    url = urlsplit(way.url)
    named = {"host": url.netloc, "content-length": str(len(way.body)), **way.headers}
    lines = [f"POST {url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    message = "\r\n".join([*lines, "", ""]).encode() + way.body
    answers: list[tuple[int, float]] = []

    async def ask_in_turn(first_s: float, period_s: float) -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        due_s = first_s
        while due_s < ends_s:
            await asyncio.sleep(due_s - time.monotonic())
            sent_s = time.monotonic()
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer)
            assert length, answer
            await reader.readexactly(int(length[1]))
            answers.append((int(answer.split()[1]), time.monotonic() - sent_s))
            due_s += period_s
        writer.close()

    period_s = OVERLOAD_CONNECTIONS / per_s
    began_s = time.monotonic() + 0.5
    ends_s = began_s + seconds
    async with asyncio.TaskGroup() as tasks:
        for number in range(OVERLOAD_CONNECTIONS):
            tasks.create_task(ask_in_turn(began_s + number / per_s, period_s))
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement")
    seconds = parser.parse_args().seconds
    for name, value in (many_models(seconds) | overload(seconds)).items():
        print(f"{name:40}{value:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
