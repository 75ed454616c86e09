"""The training core as a distributed trainer uses it: gradients meet between backward and step."""

import numpy as np
import pytest
import torch

from lepton_ai import Sequential
from lepton_ai.learn import data, fitting
from lepton_ai.learn.batches import BatchPlan, rank_rows
from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.network import build_module
from lepton_ai.learn.trainer import Meter, Trainer, forward_loss

CPU = torch.device("cpu")


def compiled(metrics=("accuracy",)):
    model = Sequential((2,), [("dense", {"units": 4, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", metrics)
    return ModelConfig.from_dict(model.to_config())


def samples_of(config, x, y):
    targets = data.as_targets(config.objective.loss, y, config.output_shape)
    return fitting.Samples.of(data.as_inputs(config, x), targets, CPU)


def test_two_ranks_that_average_gradients_train_as_one(blobs):
    config, samples = compiled(), samples_of(compiled(), *blobs)
    plan = BatchPlan(len(samples), batch_size=20, seed=1)
    alone = Trainer(config, build_module(config, 1), total_steps=10)
    ranks = [Trainer(config, build_module(config, 1), total_steps=10) for _ in range(2)]
    for step in range(10):
        indices = plan.indices(step)
        alone.backward(*samples.take(torch.from_numpy(indices)))
        alone.step()
        for rank, trainer in enumerate(ranks):
            share = indices[list(rank_rows(len(indices), rank, 2))]
            trainer.backward(*samples.take(torch.from_numpy(share)))
        for first, second in zip(*(t.module.parameters() for t in ranks), strict=True):
            mean = (first.grad + second.grad) / 2
            first.grad, second.grad = mean, mean.clone()
        for trainer in ranks:
            trainer.step()
    for expected, found in zip(
        alone.module.parameters(), ranks[1].module.parameters(), strict=True
    ):
        assert torch.allclose(expected, found, atol=1e-6)


def test_state_moves_to_a_joining_rank(blobs):
    config, samples = compiled(), samples_of(compiled(), *blobs)
    plan = BatchPlan(len(samples), batch_size=20, seed=1)
    veteran = Trainer(config, build_module(config, 1), total_steps=10)
    joiner = Trainer(config, build_module(config, 2), total_steps=10)

    def step(trainer, number):
        trainer.backward(*samples.take(torch.from_numpy(plan.indices(number))))
        trainer.step()

    for number in range(4):
        step(veteran, number)
    joiner.load_state(veteran.state(), steps_done=4)
    assert joiner.learning_rate == veteran.learning_rate < 0.001
    for number in range(4, 8):
        step(veteran, number)
        step(joiner, number)
    for first, second in zip(veteran.module.parameters(), joiner.module.parameters(), strict=True):
        assert torch.equal(first, second)


def test_backward_leaves_weights_and_step_moves_them(blobs):
    config, samples = compiled(), samples_of(compiled(), *blobs)
    trainer = Trainer(config, build_module(config, 1), total_steps=10)
    before = [p.detach().clone() for p in trainer.module.parameters()]
    trainer.backward(*samples.take(torch.arange(8)))
    assert all(map(torch.equal, before, trainer.module.parameters()))
    assert all(p.grad is not None for p in trainer.module.parameters())
    trainer.step()
    assert not any(map(torch.equal, before, trainer.module.parameters()))


def test_the_meter_weights_batches_by_size_and_starts_afresh(blobs):
    config, samples = compiled(), samples_of(compiled(), *blobs)
    network, meter = build_module(config, 1), Meter(config)
    results = []
    for sizes in ([100, 100], [5, 195]):
        for batch in torch.arange(200).split(sizes):
            inputs, targets = samples.take(batch)
            outputs, loss = forward_loss(network, config.objective, inputs, targets, None)
            meter.add(loss.detach(), outputs.detach(), targets)
        results.append(list(meter.results().values()))
    assert np.allclose(*results)
    whole = fitting.evaluate(config, network, samples, batch_size=7)
    assert np.allclose(list(whole.values()), results[0])


@pytest.mark.parametrize("metrics", [["accuracy", "f1"], ["roc_auc"]])
def test_a_meter_goes_on_from_another(blobs, metrics):
    config = compiled(metrics)
    samples, network = samples_of(config, *blobs), build_module(config, 1)

    def fed(meter, rows):
        inputs, targets = samples.take(rows)
        outputs, loss = forward_loss(network, config.objective, inputs, targets, None)
        meter.add(loss.detach(), outputs.detach(), targets)
        return meter

    whole = fed(fed(Meter(config), torch.arange(50)), torch.arange(50, 200)).results()
    later = Meter(config)
    later.load_state(fed(Meter(config), torch.arange(50)).state())
    assert fed(later, torch.arange(50, 200)).results() == pytest.approx(whole)
    empty = Meter(config)
    empty.load_state(Meter(config).state())
    assert fed(empty, torch.arange(200)).results() == pytest.approx(whole)
    merged = Meter(config)
    for rows in torch.arange(200).split([50, 3, 147]):
        merged.merge(fed(Meter(config), rows).state())
    assert merged.results() == pytest.approx(whole)


def test_a_batch_computed_again_is_measured_once(blobs):
    config, samples = compiled(), samples_of(compiled(), *blobs)
    trainer = Trainer(config, build_module(config, 1), total_steps=10)
    for size in (20, 100):
        trainer.backward(*samples.take(torch.arange(size)))
    trainer.step()
    once = Trainer(config, build_module(config, 1), total_steps=10)
    once.backward(*samples.take(torch.arange(100)))
    once.step()
    assert trainer.meter.results() == once.meter.results()


def test_uint8_stays_uint8_until_it_is_on_the_device(stripes):
    images, labels = stripes
    model = Sequential((8, 8), ["flatten", ("dense", {"units": 2, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy")
    samples = samples_of(model.config, images, labels)
    assert samples.inputs.dtype == torch.uint8
    assert samples.inputs.data_ptr() == torch.from_numpy(images).data_ptr(), "and is not copied"
