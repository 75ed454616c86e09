"""Writes down what it was told."""

import json
import os
import sys
from pathlib import Path

told = {"environment": dict(os.environ), "arguments": sys.argv[1:], "folder": str(Path.cwd())}
Path(os.environ["LEPTON_OUTPUT_DIR"], "told.json").write_text(json.dumps(told))
