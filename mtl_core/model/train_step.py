"""The mathematics of data-parallel training: updates, an epoch, validation. It knows no framework that runs workers.

Each worker calls these functions with its own share of the batches. What must be summed over the workers goes through
`Workers`. Labels are counted over all workers, so an update equals that of one worker at the same global batch. Each
worker's BatchNorm normalises with the statistics of its own share; the running statistics are averaged over the workers
at the end of an epoch.

Legend: B batch, T frames, F bands, C classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.losses import Mixture, cross_entropy_sums, label_counts, multitask_loss, task_weights
from mtl_core.model.mixup import mixup
from mtl_core.model.recipes import Recipe

ADAM_EPS = 1e-7  # Keras' default; torch's is 1e-8

#: A batch of `loader` on the model's device: "mel" (B, 187, 96), any float type; "track" (B,) int64, the track of each
#: segment; and each task's classes (B,) int64, `MISSING` where there is no label.
TensorBatch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The `size` data-parallel workers of a training. Several workers are torch's default process group."""

    size: int = 1

    def sum(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the workers of tensors of one shape, in one message."""
        if self.size == 1:
            return dict(values)
        stacked = torch.stack(list(values.values()))
        torch.distributed.all_reduce(stacked)
        return dict(zip(values, stacked, strict=True))

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def average_running_statistics(self, model: nn.Module) -> None:
        """Give every worker the mean of the workers' BatchNorm statistics."""
        for buffer in model.buffers() if self.size > 1 else ():
            if buffer.is_floating_point():
                torch.distributed.all_reduce(buffer)
                buffer /= self.size


ONE_WORKER = Workers()


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Scores over the segments of the validation part."""

    loss: float  # the masked L, in nats
    top1: dict[str, float]  # task -> share of its labelled segments that are classified correctly
    labelled: dict[str, int]  # task -> number of its labelled segments


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe: AdamW, which without weight decay equals Adam to the bit."""
    return torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, eps=ADAM_EPS, weight_decay=recipe.weight_decay
    )


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed torch for one epoch of one worker, so that an epoch that is trained again draws the same numbers."""
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1))


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, else float32. Norms, losses and weights are float32 in both cases."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[TensorBatch],
    recipe: Recipe,
    *,
    classes: Mapping[str, int],
    epoch: int,
    updates: int,
    workers: Workers = ONE_WORKER,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Train on one pass over this worker's share of the training part.

    Args:
        model: a `MultitaskCNN`, or one wrapped in DistributedDataParallel; set to training mode.
        optimizer: from `make_optimizer`.
        batches: this worker's `updates` batches of the epoch.
        recipe: gives learning rate, alpha and mixup.
        classes: task -> number of classes.
        epoch: from 1.
        dtype: of convolutions and products, see `training_dtype`.

    Returns:
        L in nats over the epoch's examples of all workers, as the model was at each update.
    """
    model.train()
    weights = task_weights(classes, recipe.alpha)
    totals: dict[str, Tensor] = {}
    for update, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at((epoch - 1 + update / updates) / recipe.epochs)
        targets = {task: batch[task] for task in classes}
        X_B1TF = batch["mel"].float().unsqueeze(1)
        mixture: Mixture = [(1.0, targets)]
        if recipe.mixup:
            X_B1TF, mixture = mixup(X_B1TF, targets, recipe.mixup)
        with torch.autocast(X_B1TF.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(X_B1TF)
        sums, counts = cross_entropy_sums(logits, mixture), label_counts(mixture)
        optimizer.zero_grad()
        multitask_loss(sums, workers.sum(counts), weights, workers.size).backward()
        optimizer.step()
        for task in sums:
            total = torch.stack((sums[task].detach(), counts[task]))
            totals[task] = totals[task] + total if task in totals else total
    return float(_loss_of_totals(workers.sum(totals), weights))


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[TensorBatch],
    recipe: Recipe,
    *,
    classes: Mapping[str, int],
    workers: Workers = ONE_WORKER,
) -> Validation:
    """Score the model on the validation part; each worker passes its share and gets the scores of the whole.

    The arguments are those of `train_epoch`. The model is set to evaluation mode and computes in float32.
    """
    model.eval()
    device = next(model.parameters()).device
    totals = {task: torch.zeros(3, device=device) for task in classes}
    for batch in batches:
        logits = model(batch["mel"].float().unsqueeze(1))
        targets = {task: batch[task] for task in classes}
        sums, counts = cross_entropy_sums(logits, [(1.0, targets)]), label_counts([(1.0, targets)])
        for task, logits_BC in logits.items():
            correct = ((logits_BC.argmax(1) == targets[task]) & (targets[task] != MISSING)).sum()
            totals[task] += torch.stack((sums[task], counts[task], correct))
    totals = workers.sum(totals)
    return Validation(
        loss=float(_loss_of_totals(totals, task_weights(classes, recipe.alpha))),
        top1={task: float(correct / count.clamp(min=1)) for task, (_, count, correct) in totals.items()},
        labelled={task: int(count) for task, (_, count, _) in totals.items()},
    )


def _loss_of_totals(totals: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """L of each task's totals, whose first two values are the sum of cross-entropies and the number of labels."""
    return multitask_loss(
        {task: total[0] for task, total in totals.items()}, {task: total[1] for task, total in totals.items()}, weights
    )
