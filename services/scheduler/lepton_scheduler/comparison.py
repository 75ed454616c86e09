"""What makes a version worse than the one before it."""

from __future__ import annotations

import math

from lepton_scheduler.measures import Count

__all__ = ["FEWEST_ROWS", "compare", "disagreement"]

# Few requests prove nothing, and one mishap is none.
_FEWEST_ERRORS = 3
_FEWEST_REQUESTS = 20
_MORE_ERRORS = 0.01
_SLOWER, _SLOWER_S = 2.0, 0.02
# 99 % one-sided, of the normal distribution.
_Z = 2.326
# Without the other version's figures: a client's own bad requests are seldom most of them.
_MOST = 0.5
# Of which so many have to be compared before a version counts as one that agrees.
FEWEST_ROWS = 100


def compare(old: Count, new: Count) -> str:
    """In what a version is worse than the one before it; empty where it is not.

    Args:
        old: What became of the serving version's requests.
        new: What became of the other's, in the same time.
    """
    known = old.requests >= _FEWEST_REQUESTS
    bearable = old.error_rate + _MORE_ERRORS if known else _MOST
    if new.errors >= _FEWEST_ERRORS and _least_rate(new) > bearable:
        return (
            f"{new.errors} of {new.requests} requests failed, {old.errors} of {old.requests} before"
        )
    enough = known and new.requests >= _FEWEST_REQUESTS
    if enough and new.mean_s > _SLOWER * old.mean_s + _SLOWER_S:
        return f"a request takes {new.mean_s * 1e3:.0f} ms, {old.mean_s * 1e3:.0f} ms before"
    return ""


def disagreement(new: Count, least: float) -> str:
    """How far a version's answers are from those of the one before it; empty where they may be.

    It is said as soon as the fewest rows that are compared cannot all be had any more.

    Args:
        new: Rows that both versions were asked for.
        least: The share of them, of 1, that has to agree; 0 for none.
    """
    missing = max(FEWEST_ROWS - new.rows, 0)
    if new.agreed + missing >= least * (new.rows + missing):
        return ""
    unanswered = f" ({new.unanswered} got no answer)" if new.unanswered else ""
    return f"{new.agreed} of {new.rows} rows agree{unanswered}, {100 * least:g} % are asked for"


def _least_rate(count: Count) -> float:
    """The lowest error rate that what was seen allows: the lower end of Wilson's interval.

    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
    """
    n, p, z2 = count.requests, count.error_rate, _Z * _Z
    middle = p + z2 / (2 * n)
    spread = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (middle - spread) / (1 + z2 / n)
