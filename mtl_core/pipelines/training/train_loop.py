"""The training loop of a Ray Train worker: model by model, epoch by epoch, resumed where it was interrupted.

`model.train_step` has the mathematics; here are the workers, the batches, the state on disk and the reports. Random
numbers are seeded from (seed, epoch, rank) at the start of each epoch. The state therefore needs no random state, and
an epoch that is trained again gives the same model.

Legend: S segments, N tracks, C classes, E embedding (96).
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
from ray.util.queue import Queue

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.loader import SplitSegments
from mtl_core.model.class_geometry import Moments
from mtl_core.model.cnn import ModelConfig, MultitaskCNN, with_cosine_heads
from mtl_core.model.cosine_lda import fit_cosine_lda
from mtl_core.model.embedding_moments import (
    RoundMeans,
    band_moments,
    mean_embeddings,
    round_means,
    value_moments,
)
from mtl_core.model.linear_baseline import fit_linear
from mtl_core.model.recipes import Recipe
from mtl_core.model.train_step import (
    Workers,
    make_optimizer,
    seed_epoch,
    train_epoch,
    training_dtype,
    validate,
)
from mtl_core.pipelines.training.train_input import TrainInput
from mtl_core.pipelines.training.train_state import STATE_FILE, TrainState, load_state, save_state
from mtl_core.storage.location import Location

SAMPLE_SEGMENTS = 20_000  # that closed-form heads get beside the sums over all segments


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What is trained, and how."""

    name: str  # of the model among those of a command: "final", "fold-0" …
    recipe: Recipe  # the numbers of the training
    model: ModelConfig  # while it trains
    seed: int  # of the initial weights, the dropout and the shuffling
    chooses_epoch: bool  # whether the epoch with the lowest validation loss counts, instead of the last


@dataclass(frozen=True, kw_only=True)
class TrainParts:
    """The segments of a training."""

    train: SplitSegments
    validation: SplitSegments  # it chooses the epoch; can be empty
    held_out: SplitSegments  # its tracks get embeddings from the trained model; can be empty


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
class TrackEmbeddings:
    """The embeddings that a trained model gives to N tracks."""

    mean_NE: np.ndarray  # (N, E) float32, the mean over the segments with sound; nan without any
    segments_N: np.ndarray  # (N,) the number of these segments
    read_N: np.ndarray  # (N,) the number of all segments


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    """The linear baseline, fitted on the same segments."""

    heads: dict[str, tuple[np.ndarray, np.ndarray]]  # task -> weights and biases, see `fit_linear`
    held_out: TrackEmbeddings  # the means of the values of a segment


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training returns."""

    model: ModelConfig  # of the finished model
    weights: dict[str, np.ndarray]  # name -> array
    best_epoch: int  # the epoch of the weights, from 1
    history: list[dict[str, Any]]  # an `Epoch` each, as JSON values
    held_out: TrackEmbeddings
    held_out_rounds: dict[int, RoundMeans]  # the number of segments read -> what they give, see `round_means`
    linear: LinearResult | None  # None: there are no held-out tracks


def train_worker(arguments: dict[str, Any]) -> list[TrainResult] | None:
    """Train models one after the other, each to the last epoch of its recipe, from its state file or from the start.

    Args:
        arguments: `specs`, the `TrainSpec` of each model; `parts`, a reference to the `TrainParts` of each;
            `front_end` of the mels; `folder`, where the states are kept; `progress`, a queue that takes the name of a
            model and an `Epoch` as each one ends.

    Returns:
        On rank 0 the results, on other workers None.
    """
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its successor is not in every torch we allow
    context = ray.train.get_context()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    parts: list[TrainParts] = ray.get(arguments["parts"])
    results = [
        _train(spec, spec_parts, arguments["front_end"], arguments["folder"] / spec.name, arguments["progress"])
        for spec, spec_parts in zip(arguments["specs"], parts, strict=True)
    ]
    return results if context.get_world_rank() == 0 else None


def _train(spec: TrainSpec, parts: TrainParts, front_end: FrontEnd, folder: Location, progress: Queue) -> TrainResult:
    context = ray.train.get_context()
    rank = context.get_world_rank()
    workers = Workers(size=context.get_world_size())
    torch.manual_seed(spec.seed)  # the same initial weights on every worker
    data = TrainInput(parts.train, parts.validation, spec.recipe, spec.seed)
    model = MultitaskCNN(spec.model).to(ray.train.torch.get_device())
    wrapped = ray.train.torch.prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    optimizer = make_optimizer(model, spec.recipe)
    state = load_state(folder / STATE_FILE, model, optimizer, rank=rank, world_size=workers.size)
    for epoch in range(len(state.history) + 1, spec.recipe.epochs + 1):
        seed_epoch(spec.seed, epoch, rank)
        result = _train_and_validate(spec, data, model, wrapped, optimizer, workers, epoch)
        _add_epoch(state, result, model)
        if rank == 0:
            save_state(folder / STATE_FILE, state, model, optimizer)
            progress.put((spec.name, result))
    assert state.best_weights is not None
    model.load_state_dict(state.best_weights)
    if spec.recipe.heads == "cosine_lda":
        moments = value_moments(
            model,
            data.in_order(parts.train),
            _n_tracks(parts.train),
            front_end,
            sample_every=max(1, parts.train.segments // SAMPLE_SEGMENTS),
            workers=workers,
        )
        model = with_cosine_heads(
            model, fit_cosine_lda(moments, parts.train.targets, spec.model.classes, spec.model.trunk_output)
        )
    means = round_means(model, data.in_order(parts.held_out), parts.held_out.of_track, front_end, workers=workers)
    all_segments = means.pop(max(means))
    return TrainResult(
        model=model.config,
        weights={name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()},
        best_epoch=state.best_epoch,
        history=state.history,
        held_out=TrackEmbeddings(
            mean_NE=all_segments.mean_NE, segments_N=all_segments.count_N, read_N=parts.held_out.of_track
        ),
        held_out_rounds=means,
        linear=_linear(spec, parts, data, front_end, workers) if parts.held_out.segments else None,
    )


def _linear(
    spec: TrainSpec, parts: TrainParts, data: TrainInput, front_end: FrontEnd, workers: Workers
) -> LinearResult:
    def moments(segments: SplitSegments) -> Moments:
        return band_moments(
            data.in_order(segments),
            _n_tracks(segments),
            front_end,
            ray.train.torch.get_device(),
            sample_every=max(1, segments.segments // SAMPLE_SEGMENTS),
            workers=workers,
        )

    return LinearResult(
        heads=fit_linear(moments(parts.train), parts.train.targets, spec.model.classes),
        held_out=_track_embeddings(moments(parts.held_out), parts.held_out.of_track),
    )


def _track_embeddings(moments: Moments, read_N: np.ndarray) -> TrackEmbeddings:
    return TrackEmbeddings(mean_NE=mean_embeddings(moments), segments_N=moments.count_N.astype(np.int64), read_N=read_N)


def _n_tracks(segments: SplitSegments) -> int:
    return len(next(iter(segments.targets.values())))


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
    if spec.chooses_epoch:
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
