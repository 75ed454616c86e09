"""`python -m lepton_runtime.drills`: hurts a cluster of its own; `lepton drill` runs it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

import structlog

from lepton_runtime.drills.catalogue import DRILLS
from lepton_runtime.drills.drill import Drill, Outcome, repeated
from lepton_runtime.drills.load import AT_ONCE, LEAST_PER_S
from lepton_runtime.drills.report import print_report
from lepton_runtime.processes import die_with_parent


def main() -> int:
    """Run what the arguments name; 1 when something that must hold does not."""
    die_with_parent()
    given = _arguments()
    if given.list:
        for drill in DRILLS:
            wanted = ", ".join(f"{name} in {s:g} s" for name, s in drill.wanted)
            print(f"{drill.name:<18} {drill.about}: {wanted}")
        return 0
    _be_quiet()
    results: dict[Drill, list[Outcome]] = {}
    for drill in [d for d in DRILLS if given.drill in (d.name, "all")]:
        print(f"{drill.name}: {drill.about}, {AT_ONCE} requests at a time meanwhile", flush=True)
        results[drill] = asyncio.run(_shown(drill, given.repeats, given.seed))
    print(f"load: a job that trains, and at least {LEAST_PER_S:g} requests/s answered")
    print(f"machine: {os.cpu_count()} processors, load average {os.getloadavg()[2]:.1f}")
    print_report(results)
    return int(any(outcome.broken for outcomes in results.values() for outcome in outcomes))


def _be_quiet() -> None:
    """Keep our own connections' complaints to ourselves: that they break is what drills are for."""
    logging.disable()
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)


async def _shown(drill: Drill, repeats: int, seed: int) -> list[Outcome]:
    """Each repeat's outcome, told as it comes."""
    outcomes: list[Outcome] = []
    async for outcome in repeated(drill, repeats, seed):
        outcomes.append(outcome)
        print(f"  {len(outcomes)}/{repeats} {_line(outcome)}", flush=True)
    return outcomes


def _line(outcome: Outcome) -> str:
    figures = (f"{name} {seconds:.2f} s" for name, seconds in outcome.seconds.items())
    return "; ".join([*figures, *outcome.broken])


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lepton drill", description="Hurt a cluster of its own on purpose, and measure."
    )
    names = [drill.name for drill in DRILLS]
    parser.add_argument("drill", nargs="?", choices=[*names, "all"], help="which one")
    parser.add_argument("--list", action="store_true", help="list them")
    parser.add_argument("--repeats", type=int, default=20, help="of each drill")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims")
    given = parser.parse_args(words)
    if not given.list and not given.drill:
        parser.error("name a drill, or --list")
    return given


if __name__ == "__main__":
    sys.exit(main())
