"""Where everything lies in the cluster's state. Values are serialized messages of the protocol."""

from __future__ import annotations

__all__ = [
    "DATASETS",
    "DEPLOYMENTS",
    "ELECTION_SCHEDULER",
    "JOBS",
    "JOB_KEYS",
    "MODELS",
    "NODES",
    "OBJECTS",
    "REVOKED_KEYS",
    "TASKS",
    "TASK_STATUS",
    "dataset",
    "deployment",
    "job",
    "job_key",
    "model",
    "node",
    "object_",
    "revoked_key",
    "task",
    "task_status",
    "versions",
]

_ROOT = "/lepton/v1/"

NODES = _ROOT + "nodes/"
JOBS = _ROOT + "jobs/"
JOB_KEYS = _ROOT + "job_keys/"
DEPLOYMENTS = _ROOT + "deployments/"
TASKS = _ROOT + "tasks/"
TASK_STATUS = _ROOT + "task_status/"
OBJECTS = _ROOT + "objects/"
DATASETS = _ROOT + "datasets/"
MODELS = _ROOT + "models/"
REVOKED_KEYS = _ROOT + "revoked_keys/"
ELECTION_SCHEDULER = _ROOT + "election/scheduler"


def node(node_id: str) -> str:
    """`Node`, leased; written by the node itself."""
    return NODES + node_id


def job(job_id: str) -> str:
    """`Job`; written by schedulers."""
    return JOBS + job_id


def job_key(tenant: str, idempotency_key: str) -> str:
    """Id of the job that a tenant's idempotency key made, UTF-8; written by schedulers."""
    return f"{JOB_KEYS}{tenant}/{idempotency_key}"


def deployment(name: str) -> str:
    """`Deployment`; written by schedulers."""
    return DEPLOYMENTS + name


def task(node_id: str, task_id: str) -> str:
    """`Task`; written by the leading scheduler."""
    return f"{TASKS}{node_id}/{task_id}"


def task_status(node_id: str, task_id: str) -> str:
    """`TaskStatus`; written by the node's agent while the task exists."""
    return f"{TASK_STATUS}{node_id}/{task_id}"


def object_(object_id: str) -> str:
    """`Object`; written by storage nodes."""
    return OBJECTS + object_id


def dataset(name: str, version: int) -> str:
    """`Dataset`; written by storage nodes. Versions sort by number."""
    return f"{DATASETS}{name}/{version:08d}"


def model(name: str, version: int) -> str:
    """`Model`; written by storage nodes. Versions sort by number."""
    return f"{MODELS}{name}/{version:08d}"


def versions(prefix: str, name: str) -> str:
    """Prefix of all versions of one dataset (`DATASETS`) or model (`MODELS`)."""
    return f"{prefix}{name}/"


def revoked_key(key_id: str) -> str:
    """Expiry of a revoked API key, seconds since 1970 as text; written by gateways."""
    return REVOKED_KEYS + key_id
