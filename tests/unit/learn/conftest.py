"""Small data that a model can learn in a moment."""

import numpy as np
import pytest


@pytest.fixture
def blobs():
    """200 points around four corners, and the corner of each."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 200)
    corners = np.array([[-2, -2], [-2, 2], [2, -2], [2, 2]])
    return (corners[labels] + random.normal(0, 0.4, (200, 2))).astype(np.float32), labels


@pytest.fixture
def stripes():
    """64 images of 8 x 8 pixels, uint8, with a bright upper (0) or lower (1) half."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 64)
    images = random.integers(0, 100, (64, 8, 8), dtype=np.uint8)
    images[labels == 0, :4] += 100
    images[labels == 1, 4:] += 100
    return images, labels
