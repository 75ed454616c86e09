"""Generate Python from `protos/`; with `--check`, fail where the committed code would differ."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
INCLUDES = [
    f"-I{PROTOS}",
    f"-I{files('grpc_tools') / '_proto'}",
    f"-I{Path(annotations_pb2.__file__).parents[2]}",
]
PACKAGES = ("lepton_ai/proto/v1", "lepton_runtime/oip")
# Whoever stands in front turns REST into gRPC by this set.
SERVICES = "lepton_ai/proto/v1"


def generate(target: Path) -> None:
    """Write modules and stubs below `target`, laid out as in the checkout."""
    for package in PACKAGES:
        (target / package).mkdir(parents=True, exist_ok=True)
        arguments = [f"--python_out={target}", f"--pyi_out={target}"]
        if package == SERVICES:
            arguments += [
                f"--grpc_python_out={target}",
                "--include_imports",
                f"--descriptor_set_out={target / package / 'descriptors.binpb'}",
            ]
        sources = sorted(str(path) for path in (PROTOS / package).glob("*.proto"))
        if protoc.main(["protoc", *INCLUDES, *arguments, *sources]) != 0:
            raise SystemExit(f"protoc failed on {package}")


def differences() -> list[str]:
    """Generated files that are missing, left over or not what the protos say."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = _contents(Path(folder))
    committed = _contents(ROOT)
    names = fresh.keys() | committed.keys()
    return sorted(name for name in names if fresh.get(name) != committed.get(name))


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for package in PACKAGES
        for path in (root / package).iterdir()
        if path.is_file() and path.name != "__init__.py"
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        generate(ROOT)
    elif stale := differences():
        print("generated code is stale, run `make protos`:", *stale, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
