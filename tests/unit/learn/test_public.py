"""The public names and signatures, which change only on purpose, and their documentation."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lepton_ai
import lepton_ai.learn
from lepton_ai.errors import UnavailableError

LOCK = Path(__file__).with_name("public.txt")
MODULES = ("lepton_ai", "lepton_ai.datasets", "lepton_ai.preprocessing", "lepton_ai.metrics")
PARTS = ("lepton_ai.learn", "lepton_ai.datasets", "lepton_ai.preprocessing", "lepton_ai.metrics")


def public():
    """Every public object of the learning library by its public name, with its own methods."""
    for module in map(importlib.import_module, MODULES):
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if not getattr(value, "__module__", module.__name__).startswith(PARTS):
                continue
            yield f"{module.__name__}.{name}", value
            for method in sorted(vars(value)) if inspect.isclass(value) else ():
                function = getattr(value, method)
                if inspect.isroutine(function) and not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", function


def described():
    for name, value in public():
        yield f"{name}{inspect.signature(value)}" if callable(value) else f"{name} = {value!r}"


def test_names_and_signatures_are_locked():
    found = "\n".join(described()) + "\n"
    assert found == LOCK.read_text(), (
        "if this is meant, run: python tests/unit/learn/test_public.py"
    )


def test_everything_public_is_documented():
    bare = [name for name, value in public() if callable(value) and not inspect.getdoc(value)]
    assert not bare


def test_errors_are_documented_where_arguments_are():
    for name, value in public():
        if inspect.isfunction(value) and name.count(".") == 2 and "load" in name:
            assert "Raises:" in (inspect.getdoc(value) or ""), name


def documented_modules():
    packages = [importlib.import_module(name) for name in (*MODULES, "lepton_ai.learn")]
    for package in packages:
        yield package.__name__
        if hasattr(package, "__path__") and package is not lepton_ai:
            yield from (
                m.name for m in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
            )


def examples():
    for module in map(importlib.import_module, sorted(set(documented_modules()))):
        for found in doctest.DocTestFinder().find(module):
            if found.examples:
                yield pytest.param(found, id=found.name)


@pytest.mark.parametrize("example", list(examples()))
def test_docstring_examples(example):
    try:
        doctest.DebugRunner().run(example)
    except doctest.UnexpectedException as failure:
        if isinstance(failure.exc_info[1], UnavailableError):
            pytest.skip(str(failure.exc_info[1]))
        raise failure.exc_info[1] from None


INHERITED = {"on_epoch_end", "on_fit_begin", "on_fit_end", "fit", "transform", "build"}


def test_everything_public_has_an_example():
    without = [
        name
        for name, value in public()
        if callable(value) and ">>>" not in (inspect.getdoc(value) or "")
    ]
    assert {name.rpartition(".")[2] for name in without} <= INHERITED


def test_importing_is_quick_and_light():
    program = (
        "import sys, lepton_ai; from lepton_ai import CNN, datasets, metrics;"
        "heavy = {'torch', 'sklearn', 'pandas', 'scipy', 'grpc', 'nats', 'lepton_runtime'};"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 0.6, "the interpreter itself included"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'CMM'"):
        _ = lepton_ai.CMM
    assert set(lepton_ai.__all__) <= set(dir(lepton_ai))


if __name__ == "__main__":
    LOCK.write_text("\n".join(described()) + "\n")
