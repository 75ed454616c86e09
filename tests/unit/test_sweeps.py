"""What a sweep tries, what it gives more to, and what it finds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from lepton_ai import Sequential
from lepton_ai.cluster.sweeping import Sweeper, Trial, arguments_of, score_of, with_values
from lepton_ai.errors import ConflictError, InvalidArgumentError
from lepton_ai.proto.v1 import job_pb2
from lepton_ai.sweeps import Plan, Run, Rungs, Value, best, grid, next_runs, sampled

SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED


def test_a_grid_is_every_combination() -> None:
    assert grid({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    with pytest.raises(InvalidArgumentError, match="a is the range"):
        grid({"a": "log:1:2"})
    with pytest.raises(InvalidArgumentError, match="0 combinations"):
        grid({"a": []})


def test_a_draw_is_repeatable_and_within_its_ranges() -> None:
    space = {"lr": "log:1e-4:1e-1", "units": "int:1:8", "rate": "uniform:0:0.5", "kind": ["a", "b"]}
    drawn = sampled(space, 200, seed=1)
    assert drawn == sampled(space, 200, seed=1) != sampled(space, 200, seed=2)
    assert {trial["units"] for trial in drawn} == set(range(1, 9))
    rates = [float(trial["lr"]) for trial in drawn]
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    with pytest.raises(InvalidArgumentError, match="no range"):
        sampled({"lr": "log:0:1"}, 1, seed=0)


def test_the_best_part_of_a_rung_goes_on() -> None:
    plan = Plan([{} for _ in range(9)], Rungs("epochs", 1, 9), maximize=True)
    assert plan.parameters(0, 1) == {"epochs": 3}
    runs = [Run(trial, 0, ended=True, score=trial) for trial in range(3)]
    assert next_runs(plan, runs, 2) == [Run(2, 1), Run(3, 0)]
    runs += [Run(2, 1), Run(3, 0)]
    assert next_runs(plan, runs, 1) == [Run(4, 0)]
    runs = [Run(trial, 0, ended=True, score=trial) for trial in range(9)]
    assert next_runs(plan, runs, 9) == [Run(8, 1), Run(7, 1), Run(6, 1)]
    runs += [Run(trial, 1, ended=True, score=10 - trial) for trial in (8, 7, 6)]
    assert next_runs(plan, runs, 9) == [Run(6, 2)]
    assert best(plan, [*runs, Run(6, 2, ended=True, score=0)]) == Run(6, 2, ended=True, score=0)


def test_what_failed_goes_nowhere() -> None:
    plan = Plan([{}, {}, {}], Rungs("epochs", 1, 3))
    runs = [Run(trial, 0, ended=True) for trial in range(3)]
    assert next_runs(plan, runs, 3) == []
    assert best(plan, runs) is None


class Jobs:
    """Jobs whose score is what a function says; keys that were seen make no second one."""

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, Value]] = {}
        self.under_way = self.most_under_way = 0
        self.submissions = Counter[str]()

    async def submit(self, parameters: dict[str, Value], key: str) -> job_pb2.Job:
        self.parameters.setdefault(key, parameters)
        self.submissions[key] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        return job_pb2.Job(id=key)

    async def until_ended(self, job_id: str) -> job_pb2.Job:
        await asyncio.sleep(0)
        self.under_way -= 1
        parameters = self.parameters[job_id]
        x, epochs = float(parameters["x"]), int(parameters.get("epochs", 1))
        job = job_pb2.Job(id=job_id, state=FAILED if x > 9 else SUCCEEDED)
        job.result.metrics["loss"] = (x - 3) ** 2 + 1 / epochs
        return job

    def sweep(self, plan: Plan, told: list[Trial] | None = None) -> Sweeper:
        told = [] if told is None else told
        return Sweeper(plan, self.submit, self.until_ended, self.keys, "loss", "s", told.append)

    async def keys(self) -> set[str]:
        return set(self.parameters)


def test_a_sweep_finds_the_best_with_a_few_jobs_at_a_time() -> None:
    jobs, told = Jobs(), list[Trial]()
    plan = Plan(grid({"x": list(range(12))}), Rungs("epochs", 1, 9))
    found = asyncio.run(jobs.sweep(plan, told).run(parallel=4))
    assert found.best.parameters == {"x": 3, "epochs": 9}
    assert found.best.score == pytest.approx(1 / 9)
    assert jobs.most_under_way == 4
    assert told == found.trials
    assert sum(trial.score is None for trial in told) == 2
    assert sum(trial.parameters["epochs"] == 9 for trial in told) <= 2


def test_a_sweep_that_is_started_again_has_the_same_jobs() -> None:
    jobs, plan = Jobs(), Plan(grid({"x": [1, 2]}))
    asyncio.run(jobs.sweep(plan).run(parallel=1))
    first = set(jobs.parameters)
    asyncio.run(jobs.sweep(plan).run(parallel=2))
    assert set(jobs.parameters) == first


def test_a_sweep_whose_client_died_ends_with_the_trials_that_it_had_and_none_twice() -> None:
    """What an earlier client chose counts, though from what it knew another would choose others."""
    plan = Plan(grid({"x": list(range(9))}), Rungs("epochs", 1, 9))
    for trials_until_death in range(1, 12):
        jobs, told = Jobs(), list[Trial]()

        class ClientDiedError(Exception):
            pass

        def tell(trial: Trial) -> None:
            told.append(trial)  # noqa: B023 - called within this turn
            if len(told) == trials_until_death:  # noqa: B023
                raise ClientDiedError

        with pytest.raises(ClientDiedError):
            asyncio.run(
                Sweeper(plan, jobs.submit, jobs.until_ended, jobs.keys, "loss", "s", tell).run(3)
            )
        before = dict(jobs.parameters)
        jobs.submissions.clear()
        found = asyncio.run(jobs.sweep(plan).run(parallel=3))
        assert {trial.job_id for trial in found.trials} == jobs.parameters.keys() >= before.keys()
        assert max(jobs.submissions.values()) == 1
        values = [tuple(trial.parameters.values()) for trial in found.trials]
        assert len(set(values)) == len(values)
        assert found.best.parameters == {"x": 3, "epochs": 9}


def test_a_sweep_of_failures_says_so() -> None:
    with pytest.raises(ConflictError, match="every trial failed"):
        asyncio.run(Jobs().sweep(Plan(grid({"x": [10, 11]}))).run(parallel=2))


def test_the_score_is_that_of_the_last_epoch_or_of_the_program() -> None:
    job = job_pb2.Job(id="j", state=SUCCEEDED)
    job.result.history = json.dumps({"epochs": [{"loss": 3.0}, {"loss": 1.0}]})
    assert score_of(job, "loss") == 1.0
    with pytest.raises(InvalidArgumentError, match="it tells: loss"):
        score_of(job, "accuracy")


def test_values_find_their_place_in_a_model() -> None:
    model = Sequential((2,), [("dense", {"units": 2, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy")
    form = model.to_config()
    changed = with_values(form, {"layers.0.units": 3, "objective.optimizer.learning_rate": 0.5})
    assert changed["layers"][0][1]["units"] == 3
    assert changed["objective"]["optimizer"] == ["adam", {"learning_rate": 0.5}]
    assert form == model.to_config()
    for place in ("layers.7.units", "nowhere.units", "layers.0"):
        with pytest.raises(InvalidArgumentError):
            with_values(form, {place: 1})


def test_a_program_is_told_by_its_arguments() -> None:
    assert arguments_of({"lr": 0.1, "kind": "a"}) == ["--lr", "0.1", "--kind", "a"]
