"""What every test shares: where data sets lie, when they lie next to the checkout."""

import os
from pathlib import Path

NEXT_TO_THE_CHECKOUT = Path(__file__).parents[2] / "shared/data"

if NEXT_TO_THE_CHECKOUT.is_dir():
    os.environ.setdefault("LEPTON_DATASETS", str(NEXT_TO_THE_CHECKOUT))
