"""Checks what people ask for, before anything is created."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, cast

from lepton_ai.chunking import check_object_id
from lepton_ai.errors import ConflictError, InvalidArgumentError, NotFoundError
from lepton_ai.learn.config import ModelConfig
from lepton_ai.names import check_name
from lepton_ai.proto.v1 import deployment_pb2, job_pb2, node_pb2, storage_pb2
from lepton_scheduler.placement import how_many
from lepton_scheduler.scaling import MAX_CALM_S

__all__ = [
    "check_change",
    "check_deployment",
    "check_job",
    "check_shadow",
    "check_variant",
    "newest",
    "not_found",
]

# A job is placed in one transaction of etcd, which takes 128 operations.
MAX_RANKS = 120
MAX_REPLICAS = 256
MAX_PRIORITY = 100
MAX_CHECKPOINTS = 100
# Accelerators, or processors, of one node.
MAX_SHARDS = 64
MAX_STAGE_S = 86_400.0
MAX_HEDGE_S = 600.0
WHOLE = 100  # percent
_DEFAULT_CPUS = 1.0
_MAX_ARGUMENT_BYTES = 64 * 1024


def check_job(spec: job_pb2.JobSpec, workers: Iterable[node_pb2.Node]) -> job_pb2.JobSpec:
    """A spec with its defaults filled in.

    Raises:
        InvalidArgumentError: It can never run; names what was wrong and what is allowed.
    """
    work = spec.WhichOneof("work")
    if work is None:
        raise InvalidArgumentError("the job has no work", hint="give `train`, `script` or `score`")
    checked = job_pb2.JobSpec()
    checked.CopyFrom(spec)
    if checked.name:
        check_name("job", checked.name)
    checked.workers.min = checked.workers.min or 1
    checked.workers.max = checked.workers.max or checked.workers.min
    if not 1 <= checked.workers.min <= checked.workers.max <= MAX_RANKS:
        raise InvalidArgumentError(
            f"workers {checked.workers.min}:{checked.workers.max} is no range",
            hint=f"use 1 <= min <= max <= {MAX_RANKS}",
        )
    if abs(checked.priority) > MAX_PRIORITY:
        raise InvalidArgumentError(
            f"priority is {checked.priority}", hint=f"from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    _check_resources(checked.resources)
    _check_room(checked, list(workers))
    if checked.time_limit_s < 0:
        raise InvalidArgumentError(f"time_limit_s is {checked.time_limit_s}", hint="0 for none")
    checks = {"train": _check_training, "script": _check_script, "score": _check_scoring}
    _check_shards(checked)
    checks[work](getattr(checked, work))
    return checked


def check_deployment(spec: deployment_pb2.DeploymentSpec) -> deployment_pb2.DeploymentSpec:
    """A spec with its defaults filled in; whether the model exists is not checked here."""
    checked = deployment_pb2.DeploymentSpec()
    checked.CopyFrom(spec)
    check_name("model", checked.model)
    checked.name = check_name("deployment", checked.name or checked.model)
    if checked.alias:
        check_name("alias", checked.alias)
        if checked.version:
            raise InvalidArgumentError(
                "a deployment follows an alias or stays at a version", hint="give one of them"
            )
    if checked.HasField("scale"):
        _check_scale(checked.scale)
        checked.replicas = 0
    else:
        checked.replicas = checked.replicas or 1
        if not 1 <= checked.replicas <= MAX_REPLICAS:
            raise InvalidArgumentError(
                f"{checked.replicas} replicas cannot be had", hint=f"use 1 to {MAX_REPLICAS}"
            )
    _check_rollout(checked.rollout)
    if checked.resources.cpus < 0 or checked.resources.memory_bytes < 0:
        raise InvalidArgumentError("resources cannot be negative")
    if not 0 <= checked.hedge_after_s <= MAX_HEDGE_S:
        raise InvalidArgumentError(
            f"hedge_after_s is {checked.hedge_after_s:g}", hint=f"0 to {MAX_HEDGE_S:g} seconds"
        )
    for step in (*checked.before, *checked.after):
        check_name("model", step.model)
    _check_options(checked.options)
    return checked


def check_change(
    old: deployment_pb2.DeploymentSpec, new: deployment_pb2.DeploymentSpec
) -> deployment_pb2.DeploymentSpec:
    """The new spec of a deployment that exists.

    Raises:
        ConflictError: Its replicas are told apart by their version alone, and this is another
            model.
    """
    if old.model != new.model:
        raise ConflictError(
            f"deployment {new.name!r} serves versions of model {old.model!r}",
            hint="choose another name, or undeploy it first",
        )
    return new


def check_shadow(spec: deployment_pb2.DeploymentSpec, serving_version: int) -> None:
    """Refuse to compare a version with nothing, or with itself.

    Raises:
        InvalidArgumentError: No other version serves.
    """
    if spec.rollout.shadow_percent and serving_version in (0, spec.version):
        raise InvalidArgumentError(
            f"no version but {spec.version} of deployment {spec.name!r} serves",
            hint="deploy what answers first, then its shadow",
        )


def check_variant(variant: str, model: storage_pb2.Model) -> None:
    """Refuse a variant that was not published with a model.

    Raises:
        NotFoundError: Names those that were.
    """
    kinds = [each.kind for each in model.variants]
    if variant and variant not in kinds:
        raise NotFoundError(
            f"model {model.name!r} has no variant {variant!r} in version {model.version}",
            hint=f"it has {', '.join(kinds) or 'none: publish it with variants'}",
        )


def _check_options(options: deployment_pb2.ServingOptions) -> None:
    for field, value in options.ListFields():
        numbers = cast("list[int]", list(value) if field.is_repeated else [value])
        if min(numbers) < 0:
            raise InvalidArgumentError(f"{field.name} is {min(numbers)}", hint="use 0 or more")


def _check_scale(scale: deployment_pb2.Scale) -> None:
    if not 0 <= scale.min_replicas <= scale.max_replicas <= MAX_REPLICAS or not scale.max_replicas:
        raise InvalidArgumentError(
            f"replicas {scale.min_replicas}:{scale.max_replicas} is no range",
            hint=f"use 0 <= min <= max, and max from 1 to {MAX_REPLICAS}",
        )
    if scale.target_outstanding < 0 or not 0 <= scale.calm_s <= MAX_CALM_S:
        raise InvalidArgumentError(
            "the scale's target or calm period is out of range",
            hint=f"a target of 1 or more, and a calm period of up to {MAX_CALM_S:g} s",
        )


def _check_rollout(rollout: deployment_pb2.RolloutSpec) -> None:
    if not 0 <= rollout.stage_s <= MAX_STAGE_S or rollout.stage_requests < 0:
        raise InvalidArgumentError(
            f"a stage of {rollout.stage_s:g} s cannot be had", hint=f"from 0 to {MAX_STAGE_S:g}"
        )
    if not 0 <= rollout.hold_percent < WHOLE:
        raise InvalidArgumentError(
            f"a canary of {rollout.hold_percent} % cannot be had", hint="from 0 to 99"
        )
    if not 0 <= rollout.shadow_percent <= WHOLE or rollout.shadow_percent * rollout.hold_percent:
        raise InvalidArgumentError(
            f"a shadow of {rollout.shadow_percent} % cannot be had",
            hint="from 0 to 100, and no canary with it",
        )
    if not 0 <= rollout.min_agreement <= 1 or not 0 <= rollout.tolerance < math.inf:
        raise InvalidArgumentError(
            f"agreement of {rollout.min_agreement:g} within {rollout.tolerance:g} cannot be asked",
            hint="an agreement from 0 to 1, and a tolerance of 0 or more",
        )


def newest(
    models: Iterable[storage_pb2.Model], name: str, version: int, known: Iterable[str]
) -> storage_pb2.Model:
    """The wanted version among the versions of one model, the newest for 0.

    Raises:
        NotFoundError: There is no such model or version.
    """
    found = {model.version: model for model in models}
    if not found:
        raise not_found("model", name, known)
    if version and version not in found:
        raise NotFoundError(
            f"model {name!r} has no version {version}",
            hint=f"versions: {', '.join(map(str, sorted(found)))}",
            model=name,
        )
    return found[version or max(found)]


def not_found(kind: str, name: str, known: Iterable[str]) -> NotFoundError:
    """The error for an unknown name, naming the nearest known one."""
    close = get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"list the {kind}s that exist"
    return NotFoundError(f"{kind} {name!r} does not exist", hint=hint)


def _check_resources(resources: node_pb2.Resources) -> None:
    if resources.cpus < 0 or resources.memory_bytes < 0 or resources.gpus < 0:
        raise InvalidArgumentError("resources cannot be negative")
    resources.cpus = resources.cpus or _DEFAULT_CPUS


def _check_room(spec: job_pb2.JobSpec, workers: list[node_pb2.Node]) -> None:
    """Refuse what these nodes could not run even if they were empty."""
    if not workers:
        return  # none has joined yet: it waits
    need = spec.resources
    labelled = [node for node in workers if _has(node, spec.labels)]
    if not labelled:
        wanted = ", ".join(f"{name}={text}" for name, text in spec.labels.items())
        known = {f"{name}={text}" for node in workers for name, text in node.labels.items()}
        raise InvalidArgumentError(
            f"no worker is labelled {wanted}", hint=f"labels: {', '.join(sorted(known)) or 'none'}"
        )
    fitting = sum(how_many(node.capacity, need) for node in labelled)
    if fitting < spec.workers.min:
        largest = max(node.capacity.cpus for node in workers)
        total = sum(node.capacity.cpus for node in workers)
        raise InvalidArgumentError(
            f"{spec.workers.min} ranks of {need.cpus:g} cpus and {need.gpus} gpus never fit",
            hint=f"the cluster has {len(workers)} workers with {total:g} cpus in all, "
            f"{largest:g} on the largest, and {sum(n.capacity.gpus for n in workers)} gpus",
        )


def _has(node: node_pb2.Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(name) == text for name, text in labels.items())


def _check_checkpoints(train: job_pb2.TrainSpec) -> None:
    if train.checkpoint_interval_s < 0 or train.checkpoint_every_steps < 0:
        raise InvalidArgumentError("the time between checkpoints is negative", hint="use 0 or more")
    if not 0 <= train.checkpoints_kept <= MAX_CHECKPOINTS:
        raise InvalidArgumentError(
            f"{train.checkpoints_kept} checkpoints cannot be kept", hint=f"1 to {MAX_CHECKPOINTS}"
        )


def _check_shards(spec: job_pb2.JobSpec) -> None:
    shards, gpus = spec.train.shards, spec.resources.gpus
    if not 0 <= shards <= MAX_SHARDS:
        raise InvalidArgumentError(f"shards is {shards}", hint=f"use 1 to {MAX_SHARDS}")
    if 0 < gpus < shards:
        raise InvalidArgumentError(
            f"{shards} shards do not fit {gpus} gpus",
            hint="each needs one of its own, or all of them none",
        )


def _check_script(script: job_pb2.ScriptSpec) -> None:
    check_object_id(script.source_object)
    path = PurePosixPath(script.entry)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".py" or "\0" in script.entry:
        raise InvalidArgumentError(
            f"{script.entry[:80]!r} cannot be run", hint="name a .py file in the folder"
        )
    size = sum(len(argument.encode()) for argument in script.arguments)
    if size > _MAX_ARGUMENT_BYTES or any("\0" in argument for argument in script.arguments):
        raise InvalidArgumentError(
            "the arguments are too long or hold a NUL", hint=f"{_MAX_ARGUMENT_BYTES} bytes in all"
        )


def _check_scoring(score: job_pb2.ScoreSpec) -> None:
    check_name("model", score.model.partition("@")[0].partition(":")[0])
    check_name("dataset", score.dataset.partition(":")[0])
    if score.output:
        check_name("dataset", score.output)


def _check_training(train: job_pb2.TrainSpec) -> None:
    check_name("dataset", train.dataset.partition(":")[0])
    if train.epochs < 1:
        raise InvalidArgumentError(f"epochs is {train.epochs}", hint="train for 1 or more")
    if train.batch_size < 1:
        raise InvalidArgumentError(f"batch_size is {train.batch_size}", hint="use 1 or more")
    _check_checkpoints(train)
    if not 0 <= train.validation_fraction < 1:
        raise InvalidArgumentError(
            f"validation_fraction is {train.validation_fraction:g}", hint="from 0 to below 1"
        )
    if train.shuffle_window_bytes < 0:
        raise InvalidArgumentError("shuffle_window_bytes is negative", hint="0 for 256 MiB")
    if train.publish_as:
        check_name("model", train.publish_as)
    try:
        config = json.loads(train.model_config)
    except ValueError:
        raise InvalidArgumentError("model_config is not JSON") from None
    if not isinstance(config, dict):
        raise InvalidArgumentError("model_config is not a JSON object")
    if ModelConfig.from_dict(cast(dict[str, Any], config)).objective is None:
        raise InvalidArgumentError("the model is not compiled", hint="name a loss and an optimizer")
