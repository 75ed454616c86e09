"""Losses, optimizers, activations and initialisers against NumPy, to 1e-6."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, log_softmax, softmax

from lepton_ai.learn.activations import ACTIVATIONS, build_activation
from lepton_ai.learn.initializers import INITIALIZERS
from lepton_ai.learn.losses import LOSSES, Huber
from lepton_ai.learn.optimizers import OPTIMIZERS, Adam, AdamW, GradientDescent, RmsProp, Sgd
from lepton_ai.learn.schedules import Constant, Cosine, Exponential, Linear, Step

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (6, 3))
CLASSES = np.array([0, 1, 2, 2, 1, 0])
WEIGHTS = np.array([1.0, 2.0, 5.0])
ONE_HOT = np.eye(3)[CLASSES]
BITS = (RANDOM.random((6, 3)) > 0.5).astype(float)

FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sigmoid": expit,
    "tanh": np.tanh,
    "softmax": lambda x: softmax(x, axis=-1),
}


def close(found, expected):
    assert np.allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    close(build_activation(name)(torch.tensor(LOGITS)), FORMULAS[name](LOGITS))


def value(name_or_loss, outputs, targets, weights=None):
    loss = LOSSES[name_or_loss]() if isinstance(name_or_loss, str) else name_or_loss
    weight = None if weights is None else torch.tensor(weights)
    return loss.value(torch.tensor(outputs), torch.tensor(targets), weight)


def test_regression_losses():
    error = LOGITS - BITS
    close(value("mse", LOGITS, BITS), (error**2).mean())
    close(value("mae", LOGITS, BITS), np.abs(error).mean())
    size = np.abs(error)
    huber = np.where(size <= 0.7, error**2 / 2, 0.7 * (size - 0.35))
    close(value(Huber(delta=0.7), LOGITS, BITS), huber.mean())


def test_categorical_losses():
    by_sample = -log_softmax(LOGITS, axis=1)[np.arange(6), CLASSES]
    weighted = (by_sample * WEIGHTS[CLASSES]).sum() / WEIGHTS[CLASSES].sum()
    for name, targets in (
        ("sparse_categorical_crossentropy", CLASSES),
        ("categorical_crossentropy", ONE_HOT),
    ):
        close(value(name, LOGITS, targets), by_sample.mean())
        close(value(name, LOGITS, targets, WEIGHTS), weighted)


def test_binary_loss():
    p = expit(LOGITS)
    by_output = -(BITS * np.log(p) + (1 - BITS) * np.log(1 - p))
    weight = np.where(BITS == 1, 3.0, 1.0)
    close(value("binary_crossentropy", LOGITS, BITS), by_output.mean())
    expected = (by_output * weight).sum() / weight.sum()
    close(value("binary_crossentropy", LOGITS, BITS, [1.0, 3.0]), expected)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "binary_crossentropy"])
def test_losses_on_logits_are_stable(name):
    outputs = np.array([[1e4, -1e4]])
    targets = np.array([1]) if name.startswith("sparse") else np.array([[0.0, 1.0]])
    assert np.isfinite(float(value(name, outputs, targets)))


def _gradient_descent(w, g, steps, o):
    for _ in range(steps):
        w = w - o.learning_rate * g
    return w


def _sgd(w, g, steps, o):
    velocity = np.zeros_like(w)
    for _ in range(steps):
        decayed = g + o.weight_decay * w
        velocity = o.momentum * velocity + decayed
        ahead = decayed + o.momentum * velocity if o.nesterov else velocity
        w = w - o.learning_rate * ahead
    return w


def _adam(w, g, steps, o):
    m = v = np.zeros_like(w)
    for t in range(1, steps + 1):
        w = w - o.learning_rate * getattr(o, "weight_decay", 0.0) * w
        m = o.beta_1 * m + (1 - o.beta_1) * g
        v = o.beta_2 * v + (1 - o.beta_2) * g**2
        corrected = (m / (1 - o.beta_1**t)) / (np.sqrt(v / (1 - o.beta_2**t)) + o.epsilon)
        w = w - o.learning_rate * corrected
    return w


def _rmsprop(w, g, steps, o):
    mean, velocity = np.zeros_like(w), np.zeros_like(w)
    for _ in range(steps):
        mean = o.decay * mean + (1 - o.decay) * g**2
        velocity = o.momentum * velocity + g / (np.sqrt(mean) + o.epsilon)
        w = w - o.learning_rate * velocity
    return w


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (GradientDescent(learning_rate=0.1), _gradient_descent),
        (Sgd(momentum=0.8, weight_decay=0.1), _sgd),
        (Sgd(nesterov=True), _sgd),
        (Adam(learning_rate=0.01), _adam),
        (AdamW(learning_rate=0.01, weight_decay=0.1), _adam),
        (RmsProp(learning_rate=0.01), _rmsprop),
        (RmsProp(momentum=0.5), _rmsprop),
    ],
)
def test_optimizers(optimizer, formula):
    start, gradient = RANDOM.normal(size=5), RANDOM.normal(size=5)
    weight = torch.nn.Parameter(torch.tensor(start))
    stepper = optimizer.build([weight])
    for _ in range(4):
        weight.grad = torch.tensor(gradient)
        stepper.step()
    close(weight.detach(), formula(start, gradient, 4, optimizer))


def test_every_optimizer_loss_and_activation_was_checked():
    assert set(OPTIMIZERS.values()) == {GradientDescent, Sgd, Adam, AdamW, RmsProp}
    assert set(FORMULAS) == set(ACTIVATIONS)
    assert len(LOSSES) == 6


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Cosine(), [1, 0.853553391, 0.5, 0.146446609]),
        (Cosine(warmup=0.5, floor=0.1), [0.5, 1.0, 1.0, 0.55]),
        (Linear(floor=0.2), [1, 0.8, 0.6, 0.4]),
        (Exponential(rate=0.5, steps=2), [1, 0.707106781, 0.5, 0.353553391]),
        (Step(rate=0.5, steps=2), [1, 1, 0.5, 0.5]),
    ],
)
def test_schedules(schedule, expected):
    close([schedule.factor(step, 4) for step in range(4)], expected)
    assert schedule.factor(100, 4) <= 1


@pytest.mark.parametrize(
    ("name", "stddev"),
    [
        ("normal", 0.05),
        ("uniform", 0.05 / np.sqrt(3)),
        ("xavier_uniform", np.sqrt(2 / 700)),
        ("xavier_normal", np.sqrt(2 / 700)),
        ("he_uniform", np.sqrt(2 / 400)),
        ("he_normal", np.sqrt(2 / 400)),
    ],
)
def test_initializers(name, stddev):
    weight = torch.empty(300, 400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        INITIALIZERS[name]().fill(weight)
    assert abs(float(weight.mean())) < stddev / 50
    assert float(weight.std()) == pytest.approx(stddev, rel=0.02)
