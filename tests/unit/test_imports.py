"""Imports run one way: lepton_ai.proto <- lepton_ai <- lepton_runtime <- services."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {path.parent.name for path in ROOT.glob("services/*/*/__init__.py")}
OURS = {"lepton_ai", "lepton_runtime", *SERVICES}


def allowed(package: str) -> set[str]:
    """Packages of ours that `package` may import from."""
    if package == "lepton_ai":
        return {"lepton_ai"}
    return {"lepton_ai", "lepton_runtime", package}


def imported(source: str) -> set[str]:
    """Full names of the modules that a file names in its imports, wherever they stand."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules.add(node.module or "")
    return modules


def forbidden(package: str, source: str) -> set[str]:
    """Imports of ours that a file of `package` must not make."""
    ours = {name for name in imported(source) if name.partition(".")[0] in OURS}
    return {name for name in ours if name.partition(".")[0] not in allowed(package)}


def files() -> Iterator[tuple[str, Path]]:
    for folder in (ROOT / "lepton_ai", ROOT / "lepton_runtime", *ROOT.glob("services/*/*")):
        for path in sorted(folder.rglob("*.py")):
            yield folder.name, path


@pytest.mark.parametrize("package", sorted(SERVICES))
def test_services_import_the_runtime_before_grpc(package):
    (path,) = ROOT.glob(f"services/*/{package}/__init__.py")
    assert "lepton_runtime" in imported(path.read_text())


def test_there_is_something_to_look_at():
    seen = {package for package, _ in files()}
    assert {"lepton_ai", "lepton_runtime", "lepton_gateway", "lepton_worker"} <= seen


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("lepton_ai", "import lepton_runtime.state", {"lepton_runtime.state"}),
        ("lepton_ai", "def f():\n    from lepton_worker import agent", {"lepton_worker"}),
        ("lepton_runtime", "from lepton_gateway.app import App", {"lepton_gateway.app"}),
        ("lepton_gateway", "import lepton_worker", {"lepton_worker"}),
        ("lepton_gateway", "import lepton_gateway.app, lepton_runtime, lepton_ai, json", set()),
    ],
)
def test_the_rule_finds_what_it_forbids(package, source, found):
    assert forbidden(package, source) == found


def test_imports_run_one_way():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for package, path in files()
        for name in forbidden(package, path.read_text())
    }
    assert not wrong


def test_generated_code_stands_at_the_bottom():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "lepton_ai" / "proto").rglob("*_pb2*.py"))
        for name in imported(path.read_text())
        if name.partition(".")[0] in OURS and not name.startswith("lepton_ai.proto")
    }
    assert not wrong
