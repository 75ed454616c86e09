"""What an administrator does with storage, by the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lepton_ai import Sequential
from lepton_ai.errors import ConflictError, ResourceExhaustedError

from .conftest import until

pytestmark = pytest.mark.e2e


def test_a_quota_is_set_and_usage_is_told(cluster, command):
    rows = np.random.default_rng(3).random((1_000, 20), np.float32)
    cluster.client.upload("within", {"train": rows})

    def used():
        found = {each["tenant"]: each for each in json.loads(command("storage", "usage", "--json"))}
        return int(found.get("default", {}).get("size_bytes", 0)) > rows.nbytes

    until(used)
    command("storage", "quota", "default", "100KiB")

    def refused():
        try:
            cluster.client.upload("beyond", {"train": rows + np.random.default_rng().random()})
        except ResourceExhaustedError:
            return True
        return False

    until(refused)
    assert "100.0 KiB" in command("storage", "usage")
    command("storage", "quota", "default", "0")
    until(lambda: not refused())


def test_everything_is_checked(cluster, command):
    cluster.client.upload("checked", {"train": np.arange(10)})
    told = json.loads(command("storage", "fsck", "--json"))
    assert int(told["objects"]) >= 1
    assert int(told["copies"]) == 2 * int(told["chunks"])
    assert told["found"] == []
    assert "no findings" in command("storage", "fsck")


def test_a_model_that_nobody_names_goes_by_the_rule(cluster, command):
    rows = np.random.default_rng(5).random((8, 4), np.float32)
    model = Sequential(input_shape=(4,), layers=[("dense", {"units": 4})])
    model.compile("adam", "mse")
    model.fit(rows, rows, epochs=1)
    for _ in range(3):
        cluster.client.publish(model, "kept")
    command("models", "alias", "kept:1", "champion")
    assert command("models", "keep", "kept", "--newest", "1") == "1 versions removed\n"
    assert [m.version for m in cluster.client.models() if m.name == "kept"] == [1, 3]


def test_what_is_not_encrypted_has_no_key_to_rotate(command):
    with pytest.raises(ConflictError, match="LEPTON_MASTER_KEY_FILE"):
        command("storage", "rotate-key")
