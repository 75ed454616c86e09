"""Handwritten digits by a convolutional network: more than 9,900 of 10,000 right.

The learning rate of 'adam' falls along a cosine to zero over the epochs asked for, which is the
default of `compile`: a constant one ends a few dozen digits lower, or higher, by chance.
"""

import numpy as np

from lepton_ai import CNN
from lepton_ai.datasets import load_mnist
from lepton_ai.metrics import accuracy

train_images, train_labels = load_mnist("train")
test_images, test_labels = load_mnist("test")

train_images = train_images / 255.0
test_images = test_images / 255.0

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
model.fit(train_images, train_labels, epochs=10, batch_size=64, validation_split=0.1)

test_loss, test_accuracy = model.evaluate(test_images, test_labels)
probabilities = model.predict(test_images)
print(f"Test loss: {test_loss:.4f}, accuracy: {accuracy(test_labels, probabilities):.4f}")
print(f"Correct predictions: {np.sum(np.argmax(probabilities, axis=1) == test_labels)}")
