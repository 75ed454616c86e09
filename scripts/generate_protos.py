"""Generate `lepton_ai/proto/v1` from `protos/`; with `--check`, fail where it would differ."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("lepton_ai/proto/v1")
# The gateway hands this to Envoy, which turns REST into gRPC by it.
DESCRIPTORS = PACKAGE / "descriptors.binpb"


def generate(target: Path) -> None:
    """Write modules, stubs and the descriptor set below `target`."""
    (target / PACKAGE).mkdir(parents=True, exist_ok=True)
    sources = sorted(str(p) for p in (PROTOS / PACKAGE).glob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"-I{Path(annotations_pb2.__file__).parents[2]}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        "--include_imports",
        f"--descriptor_set_out={target / DESCRIPTORS}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


def differences() -> list[str]:
    """Generated files that are not what the protos say."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = Path(folder) / PACKAGE
        committed = ROOT / PACKAGE
        names = {p.name for p in fresh.iterdir()} | {
            p.name for p in committed.iterdir() if p.is_file() and p.name != "__init__.py"
        }
        _, different, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
        return sorted(different + missing)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    if stale := differences():
        print("generated code is stale, run `make protos`:", *stale, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
