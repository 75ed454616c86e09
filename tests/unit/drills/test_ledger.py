"""Writes that no correct cluster makes are found, and right ones are left alone."""

from __future__ import annotations

from lepton_ai.proto.v1 import job_pb2, node_pb2, task_pb2
from lepton_runtime import keys
from lepton_runtime.drills.ledger import Ledger, Moment
from lepton_runtime.state import Delete, Put, Record, Snapshot

TOKEN = 5


def put(key, message, created=1, revision=1):
    value = message if isinstance(message, bytes) else message.SerializeToString()
    return Put(Record(key, value, created, revision))


def elected(node, token):
    return put(keys.ELECTION, node.encode(), created=token)


def task(node="w1", attempt=1, token=TOKEN):
    placed = task_pb2.Task(id="j-r0", node_id=node, attempt=attempt, fencing_token=token)
    return put(keys.task(node, "j-r0", attempt), placed)


def status(attempt):
    said = task_pb2.TaskStatus(task_id="j-r0", node_id="w1", attempt=attempt)
    return put(keys.task_status("w1", "j-r0"), said)


def job(state, reason=""):
    return put(keys.job("j"), job_pb2.Job(id="j", state=state, reason=reason))


def checkpoint(step):
    kept = job_pb2.Checkpoints(newest_first=[job_pb2.Checkpoint(step=step)])
    return put(keys.checkpoints("j"), kept)


def read(*changes):
    ledger = Ledger(clock=lambda: 7.0)
    for change in (Snapshot((), 1), elected("s1", TOKEN), *changes):
        ledger.apply(change)
    return ledger


def test_an_ordinary_life_breaks_nothing():
    ledger = read(
        job(job_pb2.JOB_STATE_QUEUED),
        task(),
        status(1),
        checkpoint(10),
        Delete(keys.task("w1", "j-r0", 1), 2),
        task("w2", attempt=2),
        checkpoint(20),
        job(job_pb2.JOB_STATE_SUCCEEDED),
    )
    assert ledger.broken == []
    assert ledger.leaders == [Moment("s1", 7.0)]


def test_a_decision_under_an_old_token_is_found():
    assert read(elected("s2", 9), task()).broken == ["task j-r0 was written under an old token"]
    assert read(Delete(keys.ELECTION, 8), task()).broken
    assert not read(elected("s2", 9), task(token=9)).broken


def test_a_task_in_two_places_is_found():
    assert read(task("w1"), task("w2", attempt=2)).broken == ["task j-r0 is on w1 and w2"]


def test_what_a_replaced_attempt_says_is_found():
    assert read(task(attempt=2), status(1)).broken == ["attempt 1 of j-r0 spoke when replaced"]


def test_a_job_that_is_lost_or_lives_on_after_its_end_is_found():
    ended = job(job_pb2.JOB_STATE_SUCCEEDED)
    assert read(ended, job(job_pb2.JOB_STATE_RUNNING)).broken == ["job j changed after its end"]
    assert read(ended, Delete(keys.job("j"), 2)).broken == [f"{keys.job('j')} was removed"]
    assert read(ended, Snapshot((), 9)).broken == [f"{keys.job('j')} was removed"]
    assert not read(ended, ended).broken


def test_a_checkpoint_that_goes_back_is_found():
    assert read(checkpoint(20), checkpoint(10)).broken


def test_nodes_that_leave_or_change_hands_are_noted():
    def node(incarnation):
        return put(keys.node("w1"), node_pb2.Node(id="w1", incarnation=incarnation))

    assert read(node("a"), node("a")).lost == []
    assert read(node("a"), node("b")).lost == [Moment("w1", 7.0)]
    assert read(node("a"), Delete(keys.node("w1"), 2)).lost == [Moment("w1", 7.0)]
    assert read(node("a"), Snapshot((), 9)).lost == [Moment("w1", 7.0)]
