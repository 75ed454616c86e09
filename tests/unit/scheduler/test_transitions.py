"""What a job remembers of its life."""

from __future__ import annotations

from lepton_ai.proto.v1 import job_pb2
from lepton_scheduler.transitions import moved


def test_what_a_job_waits_for_is_one_step_however_often_it_changes() -> None:
    job = job_pb2.Job(id="j-1", attempt=1)
    for number in range(3):
        job = moved(job, job_pb2.JOB_STATE_QUEUED, f"{number} of 3 ranks fit", 10.0 + number)
    (step,) = job.history
    assert (step.reason, step.at.seconds) == ("2 of 3 ranks fit", 10)
    job = moved(job, job_pb2.JOB_STATE_QUEUED, "0 of 3 ranks fit", 20.0, anew=True)
    assert [step.attempt for step in job.history] == [1, 2]


def test_only_the_last_steps_are_kept() -> None:
    job = job_pb2.Job(id="j-1")
    for number in range(100):
        job = moved(job, job_pb2.JOB_STATE_RUNNING, f"{number} ranks train", float(number))
    assert [step.reason for step in job.history][0::63] == ["36 ranks train", "99 ranks train"]
    assert job.started_at.seconds == 0


def test_the_end_is_dated() -> None:
    job = moved(job_pb2.Job(), job_pb2.JOB_STATE_CANCELLED, "cancelled by a", 7.0)
    assert job.finished_at.seconds == 7
