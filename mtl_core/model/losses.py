"""The masked multitask cross-entropy, L = CE_artist + alpha CE_language, in nats.

A missing label (`MISSING`, -1) is masked. The loss of a head is the sum over its labelled examples, divided by the
number of its labelled examples in the global batch, over all workers. Data-parallel training averages the workers'
gradients. Each worker therefore multiplies its loss by the number of workers: the average is then the gradient of the
global L, even where labels are spread unequally. Sources: Singh & Biswas (alpha); torch's DistributedDataParallel (the
average).

Training may blend examples (`mixup`), so labels come as a mixture: pairs (share, targets). A share weights the
cross-entropy of its targets, and their number. Without blending a mixture is [(1.0, targets)].

Legend: B examples of this worker's batch, C classes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mtl_core.dataset.vocabulary import MISSING

#: (share, targets) of each part of a blend; targets are task -> (B,) int64 classes, `MISSING` where there is no label.
Mixture = Sequence[tuple[float, Mapping[str, Tensor]]]


def task_weights(classes: Mapping[str, int], alpha: float | None = None) -> dict[str, float]:
    """The factor of each task's loss: 1 for artist and for a single task, alpha for language beside artist.

    Args:
        classes: task -> number of classes.
        alpha: >= 0, else ValueError; None is the paper's rule, N_artist / N_language (68 / 17 = 4).
    """
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}")
    weights = dict.fromkeys(classes, 1.0)
    if {"artist", "language"} <= set(classes):
        weights["language"] = classes["artist"] / classes["language"] if alpha is None else alpha
    return weights


def label_counts(mixture: Mixture) -> dict[str, Tensor]:
    """Labelled examples of each task, float32 scalars. Their sums over the workers are the global counts."""
    return {
        task: torch.stack([share * (targets[task] != MISSING).sum().float() for share, targets in mixture]).sum(0)
        for task in mixture[0][1]
    }


def cross_entropy_sums(logits: Mapping[str, Tensor], mixture: Mixture) -> dict[str, Tensor]:
    """Each task's cross-entropy of its logits (B, C), summed over the labelled examples: float32 scalars in nats.

    A sum without any labelled example is 0 and still has a graph.
    """

    def summed(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        return functional.cross_entropy(logits_BC.float(), targets_B, ignore_index=MISSING, reduction="sum")

    return {
        task: torch.stack([share * summed(logits_BC, targets[task]) for share, targets in mixture]).sum(0)
        for task, logits_BC in logits.items()
    }


def multitask_loss(
    sums: Mapping[str, Tensor], counts: Mapping[str, Tensor], weights: Mapping[str, float], world_size: int = 1
) -> Tensor:
    """This worker's loss, a scalar; the mean over the workers is the L of the global batch.

    It has a graph to every head. A head without a label in the global batch, or with a weight of 0, gives itself and
    the trunk a gradient of zero.

    Args:
        sums: from `cross_entropy_sums`, of this worker's examples.
        counts: from `label_counts`, summed over the workers.
        weights: from `task_weights`.
        world_size: number of workers.
    """
    losses = [weights[task] * sums[task] * world_size / counts[task].clamp(min=1) for task in sums]
    return torch.stack(losses).sum()
