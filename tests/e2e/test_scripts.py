"""Programs of the user's own on a real cluster, and what may go wrong with them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_ai import Cluster
from lepton_ai.errors import PermissionDeniedError
from lepton_ai.proto.v1 import job_pb2, options_pb2

from .conftest import until

pytestmark = pytest.mark.e2e

PROGRAMS = Path(__file__).parent / "programs"


def printed(client, job):
    return [line.text for line in client.logs(job.id)]


def test_an_ordinary_program_runs_unchanged_and_survives_the_loss_of_an_agent(
    cluster, command, tmp_path, monkeypatch
):
    """Two ranks meet, learn together, are started again where one is lost, and go on."""
    folder = tmp_path / "work"
    shutil.copytree(PROGRAMS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".leptonignore").write_text("data/\n")
    (folder / "data").mkdir()
    (folder / "data/link").symlink_to("/etc/hostname")  # stays behind, so it is no fault
    monkeypatch.chdir(folder)
    words = (
        "submit",
        "ddp.py",
        "--workers",
        "2:2",
        "--idempotency-key",
        "ddp",
        "--",
        "--lr",
        "0.4",
    )
    job_id = command(*words).strip()
    assert command(*words).strip() == job_id
    client = cluster.client
    job = client.job(job_id)
    until(lambda: "step 12" in printed(client, job), timeout_s=120)
    cluster.kill_node("worker-2", "lepton_worker")
    job = client.wait(job)
    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 2)
    begins = [text for text in printed(client, job) if text.startswith("begins")]
    assert begins[:2] == ["begins at step 0 of 60 with 2 ranks"] * 2
    again = {int(re.findall(r"\d+", text)[0]) for text in begins[2:]}
    assert len(again) == 1
    assert 10 <= again.pop() < 60
    lines = command("logs", job_id, "--rank", "1").splitlines()
    assert lines
    assert all(line.startswith("[1]") for line in lines)
    command("job", "output", job_id, str(tmp_path / "results"))
    weights = json.loads((tmp_path / "results/weights.json").read_text())
    assert weights == [[pytest.approx(2, abs=1e-3)] * 2]
    assert job.result.metrics["loss"] < 1e-5


def test_code_needs_a_key_that_may_run_it_and_is_told_no_secret(cluster, tmp_path):
    made = [
        cluster.client.create_key(options_pb2.ROLE_DEVELOPER, may_run_code=may)
        for may in (False, True)
    ]
    may_not, may = (Cluster(cluster.profile.address, each.key) for each in made)
    with may_not, may:
        with pytest.raises(PermissionDeniedError, match="may not run code"):
            may_not.submit_script(PROGRAMS / "nosy.py")
        job = may.submit_script(PROGRAMS / "nosy.py", ["a b", "--c"], time_limit_s=120)
        assert may.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
        may.output(job.id, tmp_path)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["arguments"] == ["a b", "--c"]
    environment = told["environment"]
    ours = {name for name in environment if name.startswith("LEPTON_")}
    assert ours == {"LEPTON_JOB_ID", "LEPTON_CHECKPOINT_DIR", "LEPTON_OUTPUT_DIR"}
    assert {environment[name] for name in ("RANK", "LOCAL_RANK", "GROUP_RANK")} == {"0"}
    assert {environment[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")} == {"1"}
    until(lambda: not Path(told["folder"]).exists())


def test_a_sweep_finds_the_best(cluster, command):
    words = ("sweep", str(PROGRAMS / "objective.py"), "--set", "x=1,3,5", "--minimize", "loss")
    first = command(*words, "--name", "parabola").splitlines()
    assert len(first) == 4
    assert first[-1].startswith("best: ")
    assert first[-1].endswith("  0  x=3")
    again = command(*words, "--name", "parabola").splitlines()
    assert again[-1] == first[-1]  # the same jobs


def test_a_sweep_whose_client_is_killed_goes_on_where_it_was(cluster, command, monkeypatch):
    monkeypatch.setenv("LEPTON_ADDRESS", cluster.profile.address)
    monkeypatch.setenv("LEPTON_API_KEY", cluster.profile.api_key)
    words = ("sweep", str(PROGRAMS / "objective.py"), "--set", "x=1,2,3,4", "--minimize", "loss")
    words = (*words, "--parallel", "1", "--name", "interrupted")
    client = subprocess.Popen(
        [Path(sys.executable).with_name("lepton"), *words], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    with client, client.stdout:
        told = client.stdout.readline().split()
        client.kill()
    before = jobs_of(cluster, "interrupted")
    assert 1 <= len(before) < 4
    lines = [line.split() for line in command(*words).splitlines()]
    assert lines[-1][0] == "best:"
    assert lines[-1][-1] == "x=3"
    assert told in lines
    assert sorted(line[-1] for line in lines[:-1]) == ["x=1", "x=2", "x=3", "x=4"]
    after = jobs_of(cluster, "interrupted")
    assert {line[0] for line in lines[:-1]} == after >= before


def jobs_of(cluster, name):
    return {job.id for job in cluster.client.jobs() if job.spec.name == name}
