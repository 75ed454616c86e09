"""House prices by linear regression: a table of ten houses, and one of 20,640 blocks.

The model of the first is served (`lepton up` first).
"""

import numpy as np

from lepton_ai import Cluster, Sequential
from lepton_ai.datasets import load_housing
from lepton_ai.errors import UnavailableError
from lepton_ai.metrics import mae, r2
from lepton_ai.preprocessing import StandardScaler, clip_outliers

# Area in square metres, rooms, age in years; price in 10,000 yuan.
HOUSES = np.array(
    [
        [50, 1, 20, 150],
        [60, 2, 15, 190],
        [75, 2, 10, 245],
        [80, 2, 25, 232],
        [90, 3, 8, 303],
        [100, 3, 5, 342],
        [110, 3, 12, 357],
        [120, 4, 3, 419],
        [135, 4, 10, 452],
        [150, 5, 1, 530],
    ],
    dtype=np.float32,
)


def linear_regression(x: np.ndarray, y: np.ndarray, rate: float, epochs: int) -> Sequential:
    model = Sequential(
        input_shape=(x.shape[1],),
        layers=[("dense", {"units": 1})],
        preprocessing=[StandardScaler()],
    )
    model.compile(optimizer=("adam", {"learning_rate": rate}), loss="mse", metrics=["mae"])
    model.fit(x, y, epochs=epochs, batch_size=64, seed=0)
    return model


def ten_houses() -> float:
    x, y = HOUSES[:, :3], HOUSES[:, 3]
    model = linear_regression(x, y, rate=10, epochs=300)
    print(f"ten houses: off by {mae(y, model.predict(x)):.1f} on average")
    with Cluster() as cluster:
        endpoint = cluster.deploy(model, name="prices")
        price = float(endpoint.predict([[95, 3, 6]])[0, 0])
    print(f"the endpoint puts a house of 95 square metres at {price:.0f}")
    return price


def california() -> float:
    x, y = load_housing("train")
    model = linear_regression(clip_outliers(x), y, rate=0.05, epochs=10)
    test_x, test_y = load_housing("test")
    score = r2(test_y, model.predict(clip_outliers(test_x)))
    print(f"California: {score:.0%} of the variance explained on unseen blocks")
    return score


if __name__ == "__main__":
    ten_houses()
    try:
        california()
    except UnavailableError as missing:
        print(missing)
