"""Where everything lives in etcd. Each prefix has one kind of writer (docs/architecture.md)."""

from __future__ import annotations

__all__ = [
    "ALIASES",
    "CHECKPOINTS",
    "CORDONED",
    "DATASETS",
    "DEPLOYMENTS",
    "DRAINING",
    "ELECTION",
    "JOBS",
    "MEMORY",
    "MODELS",
    "NODES",
    "OBJECTS",
    "QUOTAS",
    "RETENTION",
    "REVOKED_KEYS",
    "ROOT",
    "SHARDS",
    "TASKS",
    "TASK_STATUS",
    "TENANT_KEYS",
    "alias",
    "checkpoints",
    "cordoned",
    "dataset",
    "deployment",
    "draining",
    "job",
    "job_key",
    "model",
    "node",
    "object_",
    "quota",
    "retention",
    "revoked_key",
    "shard",
    "shards",
    "task",
    "task_status",
    "tenant_key",
]

ROOT = "/lepton/v1"
NODES = f"{ROOT}/nodes/"
JOBS = f"{ROOT}/jobs/"
JOB_KEYS = f"{ROOT}/job_keys/"
DEPLOYMENTS = f"{ROOT}/deployments/"
TASKS = f"{ROOT}/tasks/"
TASK_STATUS = f"{ROOT}/task_status/"
OBJECTS = f"{ROOT}/objects/"
DATASETS = f"{ROOT}/datasets/"
MODELS = f"{ROOT}/models/"
ALIASES = f"{ROOT}/aliases/"
CORDONED = f"{ROOT}/cordoned/"
DRAINING = f"{ROOT}/draining/"
MEMORY = f"{ROOT}/storage_memory"
RETENTION = f"{ROOT}/retention/"
QUOTAS = f"{ROOT}/quotas/"
TENANT_KEYS = f"{ROOT}/tenant_keys/"
CHECKPOINTS = f"{ROOT}/checkpoints/"
SHARDS = f"{ROOT}/shards/"
REVOKED_KEYS = f"{ROOT}/revoked_keys/"
ELECTION = f"{ROOT}/election/scheduler"


def node(node_id: str) -> str:
    """A member's record."""
    return f"{NODES}{node_id}"


def job(job_id: str) -> str:
    """A job."""
    return f"{JOBS}{job_id}"


def checkpoints(job_id: str) -> str:
    """The checkpoints of a job."""
    return f"{CHECKPOINTS}{job_id}"


def shards(job_id: str) -> str:
    """Below which a job's shards are."""
    return f"{SHARDS}{job_id}/"


def shard(job_id: str, number: int) -> str:
    """A shard of a job; numbers are padded so that keys sort as shards do."""
    return f"{shards(job_id)}{number:08d}"


def job_key(tenant: str, idempotency_key: str) -> str:
    """The job that an idempotency key made."""
    return f"{JOB_KEYS}{tenant}/{idempotency_key}"


def deployment(name: str) -> str:
    """A deployment."""
    return f"{DEPLOYMENTS}{name}"


def task(node_id: str, task_id: str, attempt: int) -> str:
    """Work placed on a node: each attempt has a key of its own."""
    return f"{TASKS}{node_id}/{task_id}/{attempt}"


def task_status(node_id: str, task_id: str) -> str:
    """What the node says of it."""
    return f"{TASK_STATUS}{node_id}/{task_id}"


def object_(object_id: str) -> str:
    """The manifest of an object."""
    return f"{OBJECTS}{object_id}"


def dataset(name: str, version: int) -> str:
    """A version of a dataset; numbers are padded so that keys sort as versions do."""
    return f"{DATASETS}{name}/{version:08d}"


def model(name: str, version: int) -> str:
    """A version of a model; numbers are padded so that keys sort as versions do."""
    return f"{MODELS}{name}/{version:08d}"


def alias(model_name: str, name: str) -> str:
    """An alias of a model."""
    return f"{ALIASES}{model_name}/{name}"


def cordoned(node_id: str) -> str:
    """A worker that takes no new work."""
    return f"{CORDONED}{node_id}"


def draining(node_id: str) -> str:
    """A node that is to be emptied."""
    return f"{DRAINING}{node_id}"


def tenant_key(tenant: str) -> str:
    """The key that a tenant's chunks are encrypted with, wrapped."""
    return f"{TENANT_KEYS}{tenant}"


def quota(tenant: str) -> str:
    """How much a tenant may store."""
    return f"{QUOTAS}{tenant}"


def retention(model_name: str) -> str:
    """How many versions of a model are kept."""
    return f"{RETENTION}{model_name}"


def revoked_key(key_id: str) -> str:
    """A key that is refused."""
    return f"{REVOKED_KEYS}{key_id}"
