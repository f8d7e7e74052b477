"""The multitask CNN: parameter counts, shapes, initial weights, heads."""

import pytest
import torch
from torch import nn

from mtl_core.model.cnn import BANDS, EMBEDDING, FRAMES, ModelConfig, MultitaskCNN, drop_head

PAPER = {"artist": 68, "language": 17}


def _segments(count: int) -> torch.Tensor:
    return torch.rand(count, 1, FRAMES, BANDS, generator=torch.Generator().manual_seed(0))


def parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_paper():
    model = MultitaskCNN(ModelConfig(classes=PAPER))
    assert parameter_count(model.trunk) == 185_568
    assert parameter_count(model) == 193_813
    assert parameter_count(MultitaskCNN(ModelConfig(classes=PAPER, padding="same"))) == 226_453


@pytest.mark.parametrize("classes", [PAPER, {"artist": 3}, {"language": 1}])
def test_there_is_one_head_for_each_task(classes):
    model = MultitaskCNN(ModelConfig(classes=classes)).eval()
    X_B1TF = _segments(2)
    assert model.embed(X_B1TF).shape == (2, EMBEDDING)
    assert {task: tuple(logits.shape) for task, logits in model(X_B1TF).items()} == {
        t: (2, c) for t, c in classes.items()
    }


def test_relu_comes_before_the_norm_and_the_pool_after_it():
    block = MultitaskCNN(ModelConfig(classes=PAPER)).trunk[0]
    assert [type(layer) for layer in block] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout]


def test_initial_weights_are_those_of_keras():
    model = MultitaskCNN(ModelConfig(classes=PAPER))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_out, fan_in, *kernel = module.weight.shape
            area = 9 if kernel else 1
            limit = (6 / (area * (fan_in + fan_out))) ** 0.5
            assert float(module.weight.abs().max()) <= limit
            assert float(module.weight.std()) == pytest.approx(limit / 3**0.5, rel=0.1)
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize("classes", [{"artist": 68}, {"language": 17}])
def test_one_seed_gives_the_same_trunk_for_any_tasks(classes):
    states = []
    for tasks in (PAPER, classes):
        torch.manual_seed(7)
        states.append(MultitaskCNN(ModelConfig(classes=tasks)).state_dict())
    shared = [name for name in states[1] if name in states[0] and "language" not in name]
    assert len(shared) == len(states[1]) - 2 * ("language" in classes)
    assert all(torch.equal(states[0][name], states[1][name]) for name in shared)


def test_dropping_a_head_changes_nothing_else():
    model = MultitaskCNN(ModelConfig(classes=PAPER)).eval()
    dropped = drop_head(model, "language")
    X_B1TF = _segments(2)
    assert list(dropped(X_B1TF)) == ["artist"]
    assert torch.equal(dropped(X_B1TF)["artist"], model(X_B1TF)["artist"])
    assert not dropped.training
    with pytest.raises(ValueError, match="language"):
        drop_head(dropped, "language")
    with pytest.raises(ValueError, match="one other must stay"):
        drop_head(dropped, "artist")


def test_config_survives_a_round_trip_and_refuses_wrong_values():
    config = ModelConfig(classes=PAPER, padding="same", dropout=0.1)
    assert ModelConfig.from_dict(config.to_dict()) == config
    for wrong in (
        {"classes": {}},
        {"classes": {"mood": 3}},
        {"classes": {"artist": 0}},
        {"classes": PAPER, "padding": "full"},
        {"classes": PAPER, "dropout": 1.0},
        {"classes": PAPER, "batch_norm_momentum": 0.0},
        {"classes": PAPER, "channels": (8,) * 6},
    ):
        with pytest.raises(ValueError, match="got"):
            ModelConfig(**wrong)
