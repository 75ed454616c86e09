"""Every example from loading its data to a served endpoint, as a reader runs it."""

import runpy
from pathlib import Path

import pytest

from lepton_ai.datasets import loaders
from lepton_ai.errors import UnavailableError

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _known_cluster(cluster, monkeypatch):
    monkeypatch.setenv("LEPTON_HOME", str(cluster.home))


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_house_prices():
    assert 290 < example("house_prices")["ten_houses"]() < 350


def test_house_prices_of_a_real_table():
    try:
        loaders.load_housing("test")
    except UnavailableError as missing:
        pytest.skip(str(missing))
    assert example("house_prices")["california"]() > 0.6


def test_digits():
    assert example("digits_cnn")["main"]() > 0.96


def test_forecast():
    error, naive = example("forecast_lstm")["main"]()
    assert error < naive / 2


def test_spam():
    try:
        loaders.load_sms_spam("test")
    except UnavailableError as missing:
        pytest.skip(str(missing))
    logistic_regression, gru = example("spam")["main"]()
    assert gru >= 0.95
    assert logistic_regression >= 0.9
