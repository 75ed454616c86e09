"""The next value of a noisy seasonal series by an LSTM, served (`lepton up` first)."""

import numpy as np

from lepton_ai import RNN, Cluster
from lepton_ai.metrics import mae
from lepton_ai.preprocessing import StandardScaler

STEPS = 24


def series(length: int = 1200) -> np.ndarray:
    """Degrees by the hour: a day's wave on a slower one, and noise."""
    hours = np.arange(length)
    wave = 15 + 6 * np.sin(hours * 2 * np.pi / 24) + 3 * np.sin(hours * 2 * np.pi / 168)
    return (wave + np.random.default_rng(0).normal(0, 0.3, length)).astype(np.float32)


def windows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every `STEPS` values and the one that follows them."""
    x = np.lib.stride_tricks.sliding_window_view(values[:-1], STEPS)
    return x[..., np.newaxis], values[STEPS:]


def main() -> tuple[float, float]:
    x, y = windows(series())
    train, test = slice(0, 960), slice(960, None)
    model = RNN(
        input_shape=(STEPS, 1),
        layers=[("lstm", {"units": 32}), ("dense", {"units": 1})],
        preprocessing=[StandardScaler()],
    )
    model.compile(("adam", {"learning_rate": 0.02}), "huber", ["mae"])
    model.fit(x[train], y[train] - 15, epochs=25, seed=0)

    with Cluster() as cluster:
        endpoint = cluster.deploy(model, name="forecast")
        forecast = endpoint.predict(x[test])[:, 0] + 15
    error, naive = mae(y[test], forecast), mae(y[test], x[test][:, -1, 0])
    print(f"the endpoint is off by {error:.2f} degrees; the last value, by {naive:.2f}")
    return error, naive


if __name__ == "__main__":
    main()
