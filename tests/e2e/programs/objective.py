"""Has its least at x = 3."""

import argparse
import json
import os
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
loss = (parser.parse_args().x - 3) ** 2
Path(os.environ["LEPTON_OUTPUT_DIR"], "metrics.json").write_text(json.dumps({"loss": loss}))
