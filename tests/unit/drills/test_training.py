"""How far a job came, and whether what it came to is right."""

from __future__ import annotations

import numpy as np

from lepton_ai.proto.v1 import job_pb2
from lepton_runtime.drills.training import Result, Run


def run(*told):
    made = Run("j")
    for at, step in told:
        progress = job_pb2.JobProgress(step=step)
        progress.at.FromNanoseconds(int(at * 1e9))
        made.told.append(progress)
    return made


def test_steps_taken_once_more_are_counted():
    assert run((1.0, 10), (2.0, 20), (3.0, 30)).steps_lost() <= 0
    assert run((1.0, 10), (2.0, 20), (3.0, 14), (4.0, 24)).steps_lost() == 6


def test_ranks_that_tell_side_by_side_are_no_step_back():
    assert run((1.0, 10), (2.0, 21), (2.1, 20), (3.0, 30)).steps_lost() <= 0


def test_results_are_compared_but_for_rounding():
    undisturbed = Result({"w": np.ones(3, np.float32)}, loss=1.0)
    assert not Result({"w": np.full(3, 1.0001, np.float32)}, 1.0001).differs_from(undisturbed)
    assert Result({"w": np.full(3, 1.1, np.float32)}, 1.0).differs_from(undisturbed)
    assert Result({"w": np.ones(3, np.float32)}, 1.02).differs_from(undisturbed)
