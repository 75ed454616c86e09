"""An ensemble, options and a variant in a cluster, from a person's words to answers."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_ai import Sequential
from lepton_ai.errors import ConflictError, NotFoundError

pytestmark = pytest.mark.e2e
ROWS = np.random.default_rng(5).random((200, 4), np.float32)


def fitted(columns, units):
    model = Sequential(input_shape=(columns,), layers=[("dense", {"units": units})])
    model.compile("adam", "mse")
    x = np.random.default_rng(units).random((32, columns), np.float32)
    model.fit(x, np.zeros((32, units), np.float32), epochs=1, seed=1)
    return model


def test_models_in_a_row_answer_as_one_and_a_variant_in_place_of_its_model(cluster):
    client = cluster.client
    first, second = fitted(4, 6), fitted(6, 3)
    client.publish(first, "widen", variants=["fp16"], sample=ROWS)
    client.publish(second, "narrow")
    options = {"cache_bytes": 1_000_000}
    endpoint = client.deploy("narrow", name="both", before=["widen"], options=options)
    expected = second.predict(first.predict(ROWS))
    np.testing.assert_allclose(endpoint.predict(ROWS), expected, rtol=1e-3, atol=1e-4)
    alone = client.deploy("narrow", name="both")
    np.testing.assert_allclose(alone.predict(first.predict(ROWS)), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConflictError, match="served as before"):
        client.deploy("narrow", name="both", before=["narrow"])
    np.testing.assert_allclose(alone.predict(first.predict(ROWS)), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConflictError, match="takes 'input' as FP32"):
        client.deploy("widen", name="misfit", before=["narrow"])
    with pytest.raises(NotFoundError, match="it has fp16"):
        client.deploy("widen", variant="int8")
    half = client.deploy("widen", variant="fp16")
    np.testing.assert_allclose(half.predict(ROWS), first.predict(ROWS), atol=0.01)
    with pytest.raises(ConflictError, match="misfit"):
        client.delete_model("narrow", 1)
    for name in ("misfit", "widen", "both"):
        client.undeploy(name)
