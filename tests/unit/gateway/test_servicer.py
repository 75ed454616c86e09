from __future__ import annotations

import pytest

from lepton_ai.errors import InvalidArgumentError, PermissionDeniedError
from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, options_pb2
from lepton_gateway.servicer import check_role, summarize
from lepton_runtime import keys


@pytest.mark.parametrize("role", [options_pb2.ROLE_INFERENCE, options_pb2.ROLE_ADMIN])
def test_a_key_gives_at_most_its_own_role(role: options_pb2.Role) -> None:
    check_role(role, options_pb2.ROLE_ADMIN)
    check_role(role, role)


def test_a_key_gives_no_more_than_its_own_role() -> None:
    with pytest.raises(PermissionDeniedError):
        check_role(options_pb2.ROLE_ADMIN, options_pb2.ROLE_DEVELOPER)


@pytest.mark.parametrize("role", [options_pb2.ROLE_UNSPECIFIED, options_pb2.ROLE_SERVICE, 9])
def test_some_roles_are_never_given(role: int) -> None:
    with pytest.raises(InvalidArgumentError, match="ROLE_VIEWER"):
        check_role(role, options_pb2.ROLE_SERVICE)


def test_a_cluster_is_summed_up() -> None:
    worker = node_pb2.Node(role=node_pb2.NODE_ROLE_WORKER).SerializeToString()
    running = job_pb2.Job(state=job_pb2.JOB_STATE_RUNNING).SerializeToString()
    ended = job_pb2.Job(state=job_pb2.JOB_STATE_SUCCEEDED).SerializeToString()
    deployment = deployment_pb2.Deployment(ready_replicas=2).SerializeToString()
    status = summarize(
        {
            keys.NODES: [worker, worker],
            keys.JOBS: [running, ended],
            keys.DEPLOYMENTS: [deployment],
            keys.MODELS: [b""],
            keys.DATASETS: [],
        }
    )
    assert (status.workers, status.active_jobs, status.ready_replicas) == (2, 1, 2)
    assert (status.models, status.datasets, status.schedulers) == (1, 0, 0)
