"""The mathematics of training without Ray: two gloo processes train the model of one, labels count over all workers."""

import math

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.cnn import BANDS, FRAMES, MultitaskCNN
from mtl_core.model.recipes import Recipe
from mtl_core.model.train_step import (
    ONE_WORKER,
    Workers,
    make_optimizer,
    seed_epoch,
    train_epoch,
    training_dtype,
    validate,
)

CLASSES = {"artist": 4, "language": 2}
#: Without dropout, whose draws differ between one process and two.
RECIPE = Recipe(learning_rate=1e-2, epochs=2, global_batch=8, dropout=0.0, batch_norm_momentum=0.1)
UPDATES = 3


def _batches(rank=0, world_size=1):
    """Three global batches of 8 segments; one half of each has no language."""
    random = torch.Generator().manual_seed(1)
    share = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
    for _ in range(UPDATES):
        batch = {
            "mel": torch.rand(8, FRAMES, BANDS, generator=random).half(),
            "track": torch.arange(8),
            "artist": torch.tensor([0, 1, 2, 3, 0, MISSING, 2, 3]),
            "language": torch.tensor([0, 0, 1, 1] + [MISSING] * 4),
        }
        yield {name: values[share] for name, values in batch.items()}


def _model(recipe=RECIPE):
    torch.manual_seed(0)
    return MultitaskCNN(recipe.model_config(CLASSES))


class _NormsInEvalMode(torch.nn.Module):
    """A model whose BatchNorms use their running statistics, which do not depend on how a batch is shared."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, X_B1TF):
        return self.model(X_B1TF)


def _train(
    model, batches, *, workers=ONE_WORKER, recipe=RECIPE, wrap=lambda model: model, optimizer=None, dtype=torch.float32
):
    return train_epoch(
        wrap(_NormsInEvalMode(model)),
        optimizer or make_optimizer(model, recipe),
        batches,
        recipe,
        classes=CLASSES,
        epoch=1,
        updates=UPDATES,
        workers=workers,
        dtype=dtype,
    )


def test_two_workers_train_and_validate_as_one_does(tmp_path):
    """Real gloo processes; worker 1 has no language label at all."""
    context = torch.multiprocessing.spawn(_worker, args=(2, str(tmp_path)), nprocs=2, join=False)
    while not context.join(timeout=60):
        pass
    model = _model()
    loss = _train(model, _batches(), optimizer=_sgd(model))
    scores = validate(model, _batches(), RECIPE, classes=CLASSES)
    for rank in range(2):
        theirs = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert theirs["train_loss"] == pytest.approx(loss, rel=1e-5)
        assert theirs["loss"] == pytest.approx(scores.loss, rel=1e-5)
        assert (theirs["top1"], theirs["labelled"]) == (scores.top1, scores.labelled)
        assert torch.equal(theirs["statistics"], torch.full((3,), 0.5))  # the mean of 0 and 1
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(theirs["model"][name], parameter.detach(), rtol=1e-4, atol=1e-6)


def _sgd(model):
    """Its steps are in proportion to the gradients; Adam's would turn a rounding error into a whole step."""
    return torch.optim.SGD(model.parameters(), lr=RECIPE.learning_rate)


def _worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    workers = Workers(size=world_size)
    model = _model()
    loss = _train(
        model,
        _batches(rank, world_size),
        workers=workers,
        optimizer=_sgd(model),
        wrap=lambda wrapped: torch.nn.parallel.DistributedDataParallel(wrapped, broadcast_buffers=False),
    )
    scores = validate(model, _batches(rank, world_size), RECIPE, classes=CLASSES, workers=workers)
    norm = torch.nn.BatchNorm1d(3)
    norm.running_mean.fill_(rank)
    workers.average_running_statistics(norm)
    values = {"train_loss": loss, "loss": scores.loss, "top1": scores.top1, "labelled": scores.labelled}
    torch.save({**values, "model": model.state_dict(), "statistics": norm.running_mean}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_loss_of_an_epoch_is_that_of_its_labels():
    """With a learning rate of almost 0 the model stays, so training and validation see the same loss."""
    recipe = Recipe(learning_rate=1e-30, epochs=1, dropout=0.0)
    model = _model(recipe)
    assert _train(model, _batches(), recipe=recipe) == pytest.approx(
        validate(model, _batches(), recipe, classes=CLASSES).loss, rel=1e-5
    )


def test_validation_scores_by_hand():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parameter = torch.nn.Parameter(torch.zeros(1))  # its device is the model's

        def forward(self, X_B1TF):
            artist_BC = torch.zeros(len(X_B1TF), 4)
            artist_BC[:, 0] = math.log(5)  # artist 0 has a probability of 5/8, the others 1/8 each
            return {"artist": artist_BC, "language": torch.zeros(len(X_B1TF), 2)}

    scores = validate(Model(), _batches(), RECIPE, classes=CLASSES)
    assert scores.labelled == {"artist": 7 * UPDATES, "language": 4 * UPDATES}
    assert scores.top1 == {"artist": pytest.approx(2 / 7), "language": 0.5}
    artist = (2 * math.log(8 / 5) + 5 * math.log(8)) / 7
    assert scores.loss == pytest.approx(artist + 2 * math.log(2))  # alpha is 4 artists / 2 languages


def test_the_learning_rate_follows_the_schedule_within_an_epoch():
    recipe = Recipe(schedule="one_cycle", learning_rate=1e-3, epochs=2)
    rates = []

    class Optimizer(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])

    model = _model()
    optimizer = Optimizer(model.parameters(), lr=1.0)
    train_epoch(model, optimizer, _batches(), recipe, classes=CLASSES, epoch=2, updates=UPDATES)
    assert rates == [recipe.learning_rate_at(0.5 + update / 6) for update in range(UPDATES)]


def test_an_epoch_that_is_trained_again_gives_the_same_model():
    recipe = Recipe(learning_rate=1e-3, epochs=2, mixup=0.4, dropout=0.25)
    weights = []
    for epoch in (1, 1, 2):
        model = _model(recipe)
        seed_epoch(3, epoch, 0)
        _train(model, _batches(), recipe=recipe)
        weights.append(model.classifiers["artist"].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_bfloat16_is_close_to_float32():
    still = Recipe(learning_rate=1e-30, epochs=1, dropout=0.0)
    losses = [_train(_model(), _batches(), recipe=still, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert training_dtype(torch.device("cpu")) == torch.float32
