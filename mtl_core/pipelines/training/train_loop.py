"""Training loop: what every data-parallel worker runs, epoch by epoch, and how it is taken up again.

Each worker feeds its share of the global batch; labels are counted over all workers, so the update is that of one
worker at the same global batch (`losses`). BatchNorm normalises with the statistics of the worker's own share of the
batch (local, not synchronised); its running statistics are averaged over the workers at the end of each epoch.

Random numbers are seeded anew from (seed, epoch, rank), so a checkpoint needs no random state and an epoch that is
trained again drops the same activations.

Legend: B batch, T frames, F bands, C classes, S segments.
"""

import logging
import math
import os
import time
import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.util.queue import Queue
from torch import Tensor

from mtl_core.dataset.loader import SplitSegments
from mtl_core.dataset.vocabulary import MISSING
from mtl_core.inference.calibration import fit_temperature
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.losses import cross_entropy_sums, label_counts, loss_of_sums, task_weights
from mtl_core.model.mixup import mixup
from mtl_core.model.recipes import Recipe
from mtl_core.pipelines.training import checkpoints
from mtl_core.pipelines.training.train_input import TrainInput


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """All that a worker needs to know.

    Args:
        recipe: the numbers of the training.
        model: what is trained.
        seed: of the initial weights, the dropout and the shuffling.
        validates: whether there is a validation part with labels.
    """

    recipe: Recipe
    model: ModelConfig
    seed: int
    has_validation: bool


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What came of one epoch; losses in nats, `top1` task -> share of labelled validation segments that are right.

    Without a validation part `validation_loss` is None, the others are empty.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    top1: dict[str, float]
    labelled: dict[str, int]
    seconds: float


def train_worker(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Train from the last checkpoint, or from the start, to the recipe's last epoch.

    Args:
        arguments: `plan`; `parts`, a reference to the `Part` of "train" and of "validation"; `start`, the checkpoint to
            begin from where Ray Train knows none, or None; and `progress`, the queue that takes an `Epoch` as each
            ends.

    Returns:
        On rank 0: `weights` of the epoch with the best validation loss (of the last one, without validation),
        `best_epoch`, `history` and the `temperature` of each task.
    """
    logging.getLogger().setLevel(logging.WARNING)  # Ray's line for each report; the level of its own loggers is apart
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its successor is not in every torch we allow
    plan: TrainSpec = arguments["plan"]
    progress: Queue = arguments["progress"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    device = ray.train.torch.get_device()
    torch.manual_seed(plan.seed)  # the same start on every worker
    parts: dict[str, SplitSegments] = ray.get(arguments["parts"])
    data = TrainInput(parts["train"], parts["validation"], plan.recipe, plan.seed)
    model = MultitaskCNN(plan.model).to(device)
    parallel = ray.train.torch.prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    optimizer = torch.optim.AdamW(  # Adam, to the bit, without decay
        model.parameters(),
        lr=plan.recipe.learning_rate,
        eps=plan.recipe.adam_eps,
        weight_decay=plan.recipe.weight_decay,
    )
    state = checkpoints.load(model, optimizer, arguments["start"])
    while (epoch := len(state["history"]) + 1) <= plan.recipe.epochs and not _has_stopped(state, plan.recipe):
        start = time.monotonic()
        torch.manual_seed(int(np.random.SeedSequence((plan.seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1))
        train_loss = _train_epoch(parallel, optimizer, plan, epoch, data)
        if epoch < plan.recipe.epochs:
            data.begin(epoch + 1)
        _average_running_statistics(model, world_size)
        validation_loss, top1, labelled, _ = _validate(model, plan, data)
        result = Epoch(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=validation_loss,
            top1=top1,
            labelled=labelled,
            seconds=time.monotonic() - start,
        )
        state["history"].append(asdict(result))
        loss = float("inf") if validation_loss is None or math.isnan(validation_loss) else validation_loss
        if validation_loss is None or state["best_weights"] is None or loss < state["best_loss"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            state.update(best_loss=loss, best_epoch=epoch, best_weights=weights)
        checkpoints.save(state, model, optimizer, rank)
        if rank == 0:
            progress.put(result)
    model.load_state_dict(state["best_weights"])
    temperature = _validate(model, plan, data, calibrate=True)[-1]
    if rank != 0:
        return None
    return {
        "weights": {name: tensor.numpy() for name, tensor in state["best_weights"].items()},
        "best_epoch": state["best_epoch"],
        "history": state["history"],
        "temperature": temperature,
    }


def _train_epoch(
    parallel: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: TrainSpec,
    epoch: int,
    data: TrainInput,
) -> float:
    """One pass over this worker's share; returns L over the epoch's examples of all workers."""
    recipe = plan.recipe
    world_size = ray.train.get_context().get_world_size()
    weights = task_weights(plan.model.classes, recipe.alpha)
    parallel.train()
    device = ray.train.torch.get_device()
    totals = {task: torch.zeros(2, device=device) for task in plan.model.classes}
    for update, batch in enumerate(data.epoch(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at((epoch - 1 + update / data.updates) / recipe.epochs)
        X_B1TF = batch["mel"].float().unsqueeze(1)
        targets = {task: batch[task] for task in plan.model.classes}
        parts = [(1.0, targets)]
        if recipe.mixup:
            X_B1TF, parts = mixup(X_B1TF, targets, recipe.mixup)
        with precision(device):
            logits = parallel(X_B1TF)
        sums = _weighted_sum([(share, cross_entropy_sums(logits, part)) for share, part in parts])
        own = _weighted_sum([(share, label_counts(part)) for share, part in parts])
        counts = _all_reduce(own, world_size)
        loss = loss_of_sums(sums, counts=counts, weights=weights, world_size=world_size)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for task, total in totals.items():
            total += torch.stack((sums[task].detach(), own[task]))
    return _total_loss(_all_reduce(totals, world_size), weights)


@torch.no_grad()
def _validate(
    model: MultitaskCNN, plan: TrainSpec, data: TrainInput, *, calibrate: bool = False
) -> tuple[float | None, dict[str, float], dict[str, int], dict[str, float]]:
    """The masked L over the whole validation part, top-1 and number of labelled segments a task, and the temperatures.

    Each worker computes its share. The temperatures (rank 0, `calibrate`) need every track's logits at once: 4 bytes a
    class and segment.
    """
    if not plan.has_validation:
        return None, {}, {}, {}
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    tasks = list(plan.model.classes)
    totals = {task: torch.zeros(3, device=ray.train.torch.get_device()) for task in tasks}
    seen: list[tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    model.eval()
    for batch in data.validation():
        logits = model(batch["mel"].float().unsqueeze(1))
        sums, counts = cross_entropy_sums(logits, batch), label_counts({task: batch[task] for task in tasks})
        for task, logits_BC in logits.items():
            right = ((logits_BC.argmax(1) == batch[task]) & (batch[task] != MISSING)).sum()
            totals[task] += torch.stack((sums[task], counts[task], right))
        if calibrate:
            here, there = ({task: x[task].cpu().numpy() for task in tasks} for x in (logits, batch))
            seen.append((batch["track"].cpu().numpy(), here, there))
    totals = _all_reduce(totals, world_size)
    top1 = {task: float(right / max(1.0, float(count))) for task, (_, count, right) in totals.items()}
    labelled = {task: int(count) for task, (_, count, _) in totals.items()}
    loss = _total_loss(totals, task_weights(plan.model.classes, plan.recipe.alpha))
    return loss, top1, labelled, _temperatures(seen, tasks, rank, world_size) if calibrate else {}


def _temperatures(seen: list[Any], tasks: list[str], rank: int, world_size: int) -> dict[str, float]:
    """On rank 0 the temperature of each task that calibrates the validation tracks, out of what all workers saw."""
    parts: list[Any] = [seen]
    if world_size > 1:
        parts = [None] * world_size
        torch.distributed.all_gather_object(parts, seen)
    if rank != 0:
        return {}
    temperatures = {}
    for task in tasks:
        logits, targets = defaultdict(list), {}
        for tracks_B, logits_BC, targets_B in (batch for part in parts for batch in part):
            for track, logits_C, target in zip(tracks_B, logits_BC[task], targets_B[task], strict=True):
                logits[track].append(logits_C)
                targets[track] = target
        ordered = sorted(logits)
        temperatures[task] = fit_temperature(
            [np.stack(logits[track]) for track in ordered], np.array([targets[track] for track in ordered])
        )
    return temperatures


def precision(device: torch.device) -> torch.autocast:
    """Convolutions and products in bfloat16 where a GPU has it; norms, losses and weights stay float32."""
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=has_it)


def _has_stopped(state: dict[str, Any], recipe: Recipe) -> bool:
    """Whether the last `patience` epochs brought no better validation loss."""
    return recipe.patience is not None and len(state["history"]) - state["best_epoch"] >= recipe.patience


def _weighted_sum(parts: list[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    return {task: torch.stack([share * values[task] for share, values in parts]).sum(0) for task in parts[0][1]}


def _total_loss(totals: dict[str, Tensor], weights: dict[str, float]) -> float:
    """L out of each task's (sum of cross-entropies, labelled examples, …)."""
    return float(sum(weights[task] * total[0] / total[1].clamp(min=1) for task, total in totals.items()))


def _all_reduce(values: dict[str, Tensor], world_size: int) -> dict[str, Tensor]:
    """Sums over the workers, in one message."""
    if world_size == 1:
        return values
    together = torch.stack(list(values.values()))
    torch.distributed.all_reduce(together)
    return dict(zip(values, together, strict=True))


def _average_running_statistics(model: torch.nn.Module, world_size: int) -> None:
    if world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                torch.distributed.all_reduce(buffer)
                buffer /= world_size
