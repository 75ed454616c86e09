"""How many of 10,000 digits the tutorial's CNN gets right, trained three times as printed.

LEPTON_DATASETS=folder python bench/tutorial.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "examples/mnist_cnn.py"
RUNS = 3
WANTED = 9_907


def main() -> int:
    counts: list[int] = []
    for _ in range(RUNS):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(PROGRAM)], check=True, stdout=subprocess.PIPE, text=True
        )
        counts.append(int(done.stdout.split()[-1]))
        print(f"{counts[-1]:,} of 10,000 right, {time.perf_counter() - start:.0f} s")
    median = statistics.median(counts)
    print(f"median {median:,}; the tutorial printed {WANTED:,}")
    return 0 if median >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
