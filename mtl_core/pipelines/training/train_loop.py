"""The training loop of a Ray Train worker: epoch by epoch, resumed where it was interrupted.

`model.train_step` has the mathematics; here are the workers, the batches, the state on disk and the reports. Random
numbers are seeded from (seed, epoch, rank) at the start of each epoch. The state therefore needs no random state, and
an epoch that is trained again gives the same model.

Legend: S segments, N tracks, C classes.
"""

import math
import os
import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.util.queue import Queue

from mtl_core.dataset.loader import SplitSegments
from mtl_core.inference.calibration import fit_temperature
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.recipes import Recipe
from mtl_core.model.train_step import (
    Workers,
    make_optimizer,
    predict_logits,
    seed_epoch,
    train_epoch,
    training_dtype,
    validate,
)
from mtl_core.pipelines.training.train_input import TrainInput
from mtl_core.pipelines.training.train_state import TrainState, load_state, save_state
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What is trained, and how."""

    recipe: Recipe  # the numbers of the training
    model: ModelConfig
    seed: int  # of the initial weights, the dropout and the shuffling
    has_validation: bool  # whether there is a validation part with labels


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The result of one epoch."""

    epoch: int  # from 1
    train_loss: float  # L in nats
    validation_loss: float | None  # L in nats; None without a validation part
    top1: dict[str, float]  # task -> share of its labelled validation segments that are classified correctly
    labelled: dict[str, int]  # task -> number of its labelled validation segments
    seconds: float  # wall clock


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training returns.

    `weights` (name -> array) are those of the epoch with the lowest validation loss; without validation, of the last.
    """

    weights: dict[str, np.ndarray]
    best_epoch: int  # the epoch of `weights`, from 1
    history: list[dict[str, Any]]  # an `Epoch` each, as JSON values
    temperature: dict[str, float]  # task -> temperature that calibrates the validation tracks; {} without validation


def train_worker(arguments: dict[str, Any]) -> TrainResult | None:
    """Train to the recipe's last epoch, from the state file or from the start.

    Args:
        arguments: `spec`, a `TrainSpec`; `parts`, a reference to the `SplitSegments` of "train" and "validation";
            `state_file`, where the state is kept; `progress`, a queue that takes an `Epoch` as each one ends.

    Returns:
        On rank 0 the result, on other workers None.
    """
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its successor is not in every torch we allow
    spec: TrainSpec = arguments["spec"]
    state_file: Location = arguments["state_file"]
    progress: Queue = arguments["progress"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    workers = Workers(size=context.get_world_size())
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    torch.manual_seed(spec.seed)  # the same initial weights on every worker
    parts: dict[str, SplitSegments] = ray.get(arguments["parts"])
    data = TrainInput(parts["train"], parts["validation"], spec.recipe, spec.seed)
    model = MultitaskCNN(spec.model).to(ray.train.torch.get_device())
    wrapped = ray.train.torch.prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    optimizer = make_optimizer(model, spec.recipe)
    state = load_state(state_file, model, optimizer, rank=rank, world_size=workers.size)
    for epoch in range(len(state.history) + 1, spec.recipe.epochs + 1):
        seed_epoch(spec.seed, epoch, rank)
        result = _train_and_validate(spec, data, model, wrapped, optimizer, workers, epoch)
        _add_epoch(state, result, model)
        if rank == 0:
            save_state(state_file, state, model, optimizer)
            progress.put(result)
    assert state.best_weights is not None
    model.load_state_dict(state.best_weights)
    temperature = _temperatures(model, parts["validation"], data, workers) if spec.has_validation else {}
    if rank != 0:
        return None
    return TrainResult(
        weights={name: tensor.numpy() for name, tensor in state.best_weights.items()},
        best_epoch=state.best_epoch,
        history=state.history,
        temperature=temperature,
    )


def _train_and_validate(
    spec: TrainSpec,
    data: TrainInput,
    model: MultitaskCNN,
    wrapped: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    workers: Workers,
    epoch: int,
) -> Epoch:
    start_s, recipe, classes = time.monotonic(), spec.recipe, spec.model.classes
    train_loss = train_epoch(
        wrapped,
        optimizer,
        data.epoch(epoch),
        recipe,
        classes=classes,
        epoch=epoch,
        updates=data.updates,
        workers=workers,
        dtype=training_dtype(next(model.parameters()).device),
    )
    if epoch < recipe.epochs:
        data.begin(epoch + 1)
    workers.average_running_statistics(model)
    validation: dict[str, Any] = {"validation_loss": None, "top1": {}, "labelled": {}}
    if spec.has_validation:
        scores = validate(model, data.validation(), recipe, classes=classes, workers=workers)
        validation = {"validation_loss": scores.loss, "top1": scores.top1, "labelled": scores.labelled}
    return Epoch(epoch=epoch, train_loss=train_loss, seconds=time.monotonic() - start_s, **validation)


def _add_epoch(state: TrainState, result: Epoch, model: MultitaskCNN) -> None:
    """Add an epoch to the state, with the model's weights where they are the best so far."""
    state.history.append(asdict(result))
    loss = math.inf if result.validation_loss is None or math.isnan(result.validation_loss) else result.validation_loss
    if result.validation_loss is None or state.best_weights is None or loss < state.best_loss:
        state.best_loss, state.best_epoch = loss, result.epoch
        state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _temperatures(
    model: MultitaskCNN, validation: SplitSegments, data: TrainInput, workers: Workers
) -> dict[str, float]:
    """On rank 0 the temperature of each task that calibrates the validation tracks; {} on the other workers.

    The workers exchange the logits of all validation segments, 4 bytes a class and segment.
    """
    tasks = list(model.config.classes)
    of_workers: list[Any] = [predict_logits(model, data.validation(), tasks)]
    if workers.size > 1:
        predictions, of_workers = of_workers[0], [None] * workers.size
        torch.distributed.all_gather_object(of_workers, predictions)
    if ray.train.get_context().get_world_rank() != 0:
        return {}
    batches = [batch for of_worker in of_workers for batch in of_worker]
    track_S = np.concatenate([track_B for track_B, _ in batches])
    order_S = np.argsort(track_S, kind="stable")
    tracks_N, starts_N = np.unique(track_S[order_S], return_index=True)
    temperatures = {}
    for task in tasks:
        logits_SC = np.concatenate([logits[task] for _, logits in batches])[order_S]
        logits_NC = np.stack([track_SC.mean(0) for track_SC in np.split(logits_SC, starts_N[1:])])
        temperatures[task] = fit_temperature(logits_NC, validation.targets[task][tracks_N])
    return temperatures
