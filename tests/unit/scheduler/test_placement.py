"""The quick choice of a node against the plain one: look at every node and take the best."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.proto.v1 import node_pb2
from lepton_scheduler.placement import Rooms

NAMES = [f"w{number}" for number in range(5)]
amounts = st.builds(
    node_pb2.Resources,
    cpus=st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 3.0]),
    memory_bytes=st.integers(0, 3),
    gpus=st.integers(0, 2),
)
tasks = st.tuples(amounts, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), max_size=3))


def plainly(
    free: dict[str, node_pb2.Resources], need: node_pb2.Resources, load: dict[str, int]
) -> str | None:
    fitting = [
        (load.get(name, 0), -has.gpus if need.gpus else has.gpus, -has.cpus, name)
        for name, has in free.items()
        if need.cpus <= has.cpus + 1e-9
        and need.memory_bytes <= has.memory_bytes
        and need.gpus <= has.gpus
    ]
    return min(fitting)[-1] if fitting else None


@given(st.lists(amounts, min_size=1, max_size=5), st.lists(tasks, max_size=12))
def test_the_best_node_is_chosen_as_if_all_were_looked_at(
    capacities: list[node_pb2.Resources],
    asked: list[tuple[node_pb2.Resources, dict[str, int]]],
) -> None:
    free = dict(zip(NAMES, capacities, strict=False))
    nodes = {name: node_pb2.Node(id=name, capacity=has) for name, has in free.items()}
    rooms = Rooms(nodes, [])
    placed: list[tuple[str, node_pb2.Resources]] = []
    for need, load in asked:
        chosen = rooms.choose(need, load)
        assert chosen == plainly(free, need, load)
        if chosen is None and placed:
            name, gone = placed.pop()
            rooms.give_back(name, gone)
            _change(free[name], gone, 1)
        elif chosen is not None:
            rooms.take(chosen, need)
            _change(free[chosen], need, -1)
            placed.append((chosen, need))


def _change(has: node_pb2.Resources, amount: node_pb2.Resources, sign: int) -> None:
    has.cpus += sign * amount.cpus
    has.memory_bytes += sign * amount.memory_bytes
    has.gpus += sign * amount.gpus


def test_a_node_has_no_more_than_so_many_of_a_kind() -> None:
    nodes = {"w": node_pb2.Node(id="w", capacity=node_pb2.Resources(cpus=8))}
    rooms, need = Rooms(nodes, []), node_pb2.Resources(cpus=1)
    assert rooms.choose(need, {"w": 1}, at_most=2) == "w"
    assert rooms.choose(need, {"w": 1}, at_most=1) is None
