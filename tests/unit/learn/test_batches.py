"""Batches are a pure function of seed and step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lepton_ai.learn.batches import BatchPlan, Windows, epoch_order, rank_rows


@st.composite
def any_plan(draw):
    samples, batch = draw(st.integers(1, 200)), draw(st.integers(1, 64))
    blocks = st.integers(1, 50), st.integers(1, 4)
    windows = st.builds(Windows, st.just(samples), st.just(batch), *blocks)
    return BatchPlan(
        samples=samples,
        batch_size=batch,
        seed=draw(st.integers(0, 9)),
        shuffle=draw(st.booleans()),
        windows=draw(st.none() | windows),
    )


plans = any_plan()


@given(plans, st.integers(0, 3))
def test_an_epoch_visits_every_sample_once(plan, epoch):
    first = epoch * plan.steps_per_epoch
    batches = [plan.indices(first + step) for step in range(plan.steps_per_epoch)]
    assert sorted(np.concatenate(batches)) == list(range(plan.samples))


@given(plans)
def test_no_batch_holds_one_sample_unless_it_must(plan):
    sizes = [len(plan.indices(step)) for step in range(plan.steps_per_epoch)]
    assert min(sizes) > 1 or plan.batch_size == 1 or plan.samples == 1
    assert max(sizes) <= plan.batch_size + 1


@given(plans, st.integers(0, 50), st.integers(1, 5))
def test_ranks_share_a_batch_evenly(plan, step, ranks):
    size = len(plan.indices(step))
    shares = [rank_rows(size, rank, ranks) for rank in range(ranks)]
    assert [row for share in shares for row in share] == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_orders_differ_by_seed_and_epoch():
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_without_shuffling_samples_come_as_they_lie():
    plan = BatchPlan(samples=5, batch_size=2, seed=0, shuffle=False)
    assert [plan.indices(step).tolist() for step in range(2)] == [[0, 1], [2, 3, 4]]


@given(plans, st.randoms(use_true_random=False))
def test_each_sample_is_seen_once_an_epoch_whatever_the_resizes(plan, random):
    """Ranks come and go between steps; a step that they do not agree on is taken once more."""
    seen = []
    step = 0
    while step < plan.steps_per_epoch:
        batch, ranks = plan.indices(step), random.randint(1, 5)
        rows = [rank_rows(len(batch), rank, ranks) for rank in range(ranks)]
        if random.random() < 0.7:
            seen += [sample for share in rows for sample in batch[share.start : share.stop]]
            step += 1
    assert sorted(seen) == list(range(plan.samples))


def test_a_rank_needs_its_share_of_the_blocks():
    block, ranks = 100, 4
    samples = 64 * block + 30  # two windows, and a little
    plan = BatchPlan(samples, 64, seed=3, windows=Windows(samples, 64, block, blocks=32))
    needed = [set() for _ in range(ranks)]
    for step in range(plan.steps_per_epoch):  # two windows and a batch that lies across
        batch = plan.indices(step)
        for rank, blocks in enumerate(needed):
            share = rank_rows(len(batch), rank, ranks)
            blocks |= set(batch[share.start : share.stop] // block)
    assert len(set.union(*needed)) == 65
    assert all(16 <= len(blocks) <= 19 for blocks in needed)


def test_windows_are_mixed_and_differ_by_epoch():
    plan = BatchPlan(1_000, 50, seed=0, windows=Windows(1_000, 50, 100, blocks=2))
    first, second = (np.concatenate([plan.indices(e * 20 + s) for s in range(20)]) for e in (0, 1))
    assert list(first) != list(second)
    assert len({sample // 100 for sample in first[:200]}) == 2
    assert set(np.diff(first[:50])) != {4}
