from __future__ import annotations

import pytest

from lepton_ai import errors
from lepton_ai.rpc import error_of_status, status_of_error

KINDS = [
    getattr(errors, name)
    for name in errors.__all__
    if name.endswith("Error") and name != "LeptonError"
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_wire_whole(kind):
    sent = kind("job 'j-1' is gone", hint="submit it again", job="j-1")
    got = error_of_status(status_of_error(sent))
    assert type(got) is kind
    assert (got.message, got.hint, got.ids) == (sent.message, sent.hint, sent.ids)


def test_a_status_of_others_is_told_by_its_code():
    status = status_of_error(errors.NotFoundError("no such thing"))
    del status.details[:]
    got = error_of_status(status)
    assert type(got) is errors.NotFoundError
    assert str(got) == "no such thing"
