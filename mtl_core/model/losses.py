"""Losses: the masked multitask cross-entropy, L = CE_artist + alpha CE_language.

A missing label (`MISSING`, -1) is masked. Each head's loss is the sum over its labelled examples divided by the
number of labelled examples of that head in the global batch, over all workers. Data-parallel training averages the
workers' gradients; each worker therefore multiplies its sum by the number of workers, and the average is the gradient
of the global L however unequally labels are spread. Source: Singh & Biswas (alpha); torch's DistributedDataParallel
(the average).

Legend: B examples of this worker's batch, C classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from mtl_core.dataset.vocabulary import MISSING


def task_weights(classes: Mapping[str, int], alpha: float | None = None) -> dict[str, float]:
    """What each task's loss is multiplied by: 1 for artist and for a task alone, alpha for language beside artist.

    Args:
        classes: task -> number of classes.
        alpha: >= 0; None is the paper's rule, N_artist / N_language (68 / 17 = 4).

    Raises:
        ValueError: alpha is negative.
    """
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}")
    weights = dict.fromkeys(classes, 1.0)
    if {"artist", "language"} <= set(classes):
        weights["language"] = classes["artist"] / classes["language"] if alpha is None else alpha
    return weights


def label_counts(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Labelled examples of each task, float32 scalars; summed over the workers they are the global counts."""
    return {task: (target_B != MISSING).sum().float() for task, target_B in targets.items()}


def cross_entropy_sums(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each task's cross-entropy in nats summed over the labelled examples: 0, with a graph, where there are none.

    Args:
        logits: task -> (B, C).
        targets: task -> (B,) int64 indices, `MISSING` where there is no label.
    """
    return {
        task: functional.cross_entropy(logits_BC.float(), targets[task], ignore_index=MISSING, reduction="sum")
        for task, logits_BC in logits.items()
    }


def multitask_loss(
    logits: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    counts: Mapping[str, Tensor],
    weights: Mapping[str, float],
    world_size: int = 1,
) -> Tensor:
    """This worker's loss: its mean over the workers is the L of the global batch, and so are the gradients'.

    A head without any label in the global batch, and one of weight 0, gives itself and the trunk a gradient of zero.

    Args:
        logits: task -> (B, C) of this worker's examples.
        targets: task -> (B,) int64 indices of the same, `MISSING` where there is no label.
        counts: task -> labelled examples in the global batch, as `label_counts` summed over the workers.
        weights: task -> factor, as `task_weights`.
        world_size: number of workers.

    Returns:
        A scalar with a graph to every head.
    """
    return loss_of_sums(cross_entropy_sums(logits, targets), counts=counts, weights=weights, world_size=world_size)


def loss_of_sums(
    sums: Mapping[str, Tensor], *, counts: Mapping[str, Tensor], weights: Mapping[str, float], world_size: int = 1
) -> Tensor:
    """`multitask_loss` of what `cross_entropy_sums` gives."""
    losses = [weights[task] * sums[task] * world_size / counts[task].clamp(min=1) for task in sums]
    return torch.stack(losses).sum()
