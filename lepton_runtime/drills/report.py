"""Figures of many repeats, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lepton_ai.cli.output import print_table
from lepton_runtime.drills.drill import Drill, Outcome

__all__ = ["print_report"]

_HEADERS = ("DRILL", "FIGURE", "REPEATS", "P50 s", "P95 s", "WORST s", "WANTED s", "")


def print_report(results: Mapping[Drill, Sequence[Outcome]]) -> None:
    """One row a figure, beside what is wanted; then what did not hold, and the counts."""
    rows = [row for drill, outcomes in results.items() for row in _figures(drill, outcomes)]
    print_table(_HEADERS, rows)
    for drill, outcomes in results.items():
        print(f"{drill.name}: {_counts(outcomes)}")
        for text in sorted({text for outcome in outcomes for text in outcome.broken}):
            print(f"  does not hold: {text}")


def _figures(drill: Drill, outcomes: Sequence[Outcome]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for name, wanted in drill.wanted:
        seconds = [o.seconds[name] for o in outcomes if name in o.seconds]
        if not seconds:
            rows.append((drill.name, name, "0", "", "", "", f"{wanted:g}", "no figure"))
            continue
        p50, p95 = np.percentile(seconds, (50, 95))
        over = "" if max(seconds) <= wanted else "over"
        figures = (f"{value:.2f}" for value in (p50, p95, max(seconds)))
        rows.append((drill.name, name, str(len(seconds)), *figures, f"{wanted:g}", over))
    return rows


def _counts(outcomes: Sequence[Outcome]) -> str:
    held = sum(not outcome.broken for outcome in outcomes)
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.counts)
    sums = (f"{sum(o.counts.get(name, 0) for o in outcomes)} {name}" for name in names)
    return ", ".join([f"{held} of {len(outcomes)} repeats as they must be", *sums])
