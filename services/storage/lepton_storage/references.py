"""Which objects something names: what nothing names is garbage."""

from __future__ import annotations

import re

from lepton_ai.proto.v1.storage_pb2 import Dataset, Model
from lepton_runtime import keys
from lepton_runtime.state import Record, State

__all__ = ["references"]

_OBJECT_ID = re.compile(rb"b3-[0-9a-f]{64}")
# Objects are found in these wherever their messages name them.
_NAMING = (keys.CHECKPOINTS, keys.SHARDS, keys.JOBS, keys.DEPLOYMENTS, keys.TASKS)


async def references(state: State) -> dict[str, str]:
    """What names each object that is named: the end of a key, for people."""
    found: dict[str, str] = {}
    for prefix in _NAMING:
        for record in (await state.list(prefix)).records:
            names = (match.decode() for match in _OBJECT_ID.findall(record.value))
            found.update(dict.fromkeys(names, _for_people(record)))
    # Not what they were made from: they tell where they came from also after that was deleted.
    for record in (await state.list(keys.DATASETS)).records:
        dataset = Dataset.FromString(record.value)
        names = (split.object_id for split in dataset.splits)
        found.update(dict.fromkeys(names, _for_people(record)))
    for record in (await state.list(keys.MODELS)).records:
        model = Model.FromString(record.value)
        names = objects_of(model)
        found.update(dict.fromkeys(names, _for_people(record)))
    return found


def objects_of(model: Model) -> list[str]:
    """The objects that a model consists of."""
    variants = [variant.onnx_object for variant in model.variants]
    return [each for each in (model.onnx_object, model.weights_object, *variants) if each]


def _for_people(record: Record) -> str:
    return record.key.removeprefix(f"{keys.ROOT}/")
