from __future__ import annotations

import pytest

from lepton_ai.errors import InvalidArgumentError
from lepton_ai.names import check_name


@pytest.mark.parametrize("name", ["a", "mnist", "mnist-2", "a_b", "0", "a" * 63])
def test_allowed(name):
    assert check_name("model", name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "_a", "A", "a.b", "a/b", "../a", "a b", "a\n", "é", "a" * 64, "*", ">"]
)
def test_refused_with_what_is_allowed(name):
    with pytest.raises(InvalidArgumentError, match="lowercase") as caught:
        check_name("model", name)
    assert "model" in str(caught.value)
