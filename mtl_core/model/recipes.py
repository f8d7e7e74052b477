"""Recipes: all numbers of a training, under a name.

`paper` is the recipe of Singh & Biswas, completed by Keras' defaults, and never changes. Better recipes get names of
their own; docs/recipes.md says how they were chosen.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mtl_core.errors import InputError
from mtl_core.model.cnn import ModelConfig

Schedule = Literal["constant", "one_cycle"]
Checkpoint = Literal["lowest_validation_loss", "last"]
Heads = Literal["softmax", "cosine_lda"]

WARM_UP_SHARE = 0.2  # of a one_cycle training: the learning rate rises, then falls


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of one training. Raises ValueError where a value is out of its range."""

    learning_rate: float = 1e-3  # of Adam, at its peak; > 0
    schedule: Schedule = "constant"  # "one_cycle" is a linear rise over the first fifth, then a cosine fall to 0
    global_batch: int = 32  # segments of one update, over all workers; >= 1
    epochs: int = 100  # passes over the training part; >= 1
    alpha: float | None = None  # weight of the language loss beside the artist loss, >= 0; None: N_artist / N_language
    segments_per_track: int | None = None  # that an epoch takes, drawn anew each time, >= 1; None: all
    trunk: str = "paper"  # of the model, one of `cnn.TRUNKS`
    weight_decay: float = 0.0  # AdamW's, >= 0: the share of a weight that an update takes off at a learning rate of 1
    mixup: float = 0.0  # >= 0: each segment is blended in shares drawn from Beta(mixup, mixup); 0: no blending
    dropout: float = 0.25  # share of the activations that are dropped after each block, in [0, 1)
    batch_norm_momentum: float = 0.01  # weight of a batch in the running statistics, in (0, 1]; Keras' 0.99 is 0.01
    #: Whose weights count. With "last" the validation part of a split trains, too.
    checkpoint: Checkpoint = "lowest_validation_loss"
    heads: Heads = "softmax"  # of the finished model: those that were trained, or those of `cosine_lda`
    trunk_values: int = 96  # that the trunk "statistics" gives; >= 1
    statistics: bool = False  # whether the heads of `cosine_lda` use `segment_statistics` beside the trunk

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {get_args(Schedule)}, got {self.schedule!r}")
        if self.checkpoint not in get_args(Checkpoint) or self.heads not in get_args(Heads):
            raise ValueError(
                f"checkpoint must be one of {get_args(Checkpoint)} and heads one of {get_args(Heads)}, "
                f"got {self.checkpoint!r} and {self.heads!r}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        for name in ("global_batch", "epochs", "trunk_values", "segments_per_track"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        for name in ("weight_decay", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.alpha is not None and not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be None, or >= 0 and finite, got {self.alpha}")
        if not 0 <= self.dropout < 1 or not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                "dropout must be in [0, 1) and batch_norm_momentum in (0, 1], "
                f"got {self.dropout} and {self.batch_norm_momentum}"
            )

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when a share `progress`, 0 to 1, of all updates is done."""
        if self.schedule == "constant":
            return self.learning_rate
        if progress < WARM_UP_SHARE:
            return self.learning_rate * (0.04 + 0.96 * progress / WARM_UP_SHARE)
        fall = (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
        return self.learning_rate * (1 + math.cos(math.pi * fall)) / 2

    def check_workers(self, num_workers: int) -> None:
        """Raises InputError where so many data-parallel workers cannot share the global batch."""
        if num_workers < 1 or self.global_batch % num_workers:
            raise InputError(f"num-workers must divide the global batch of {self.global_batch}, got {num_workers}")

    def model_config(self, classes: dict[str, int]) -> ModelConfig:
        """The network that this recipe trains, with one head for each task of `classes` (task -> number of classes)."""
        return ModelConfig(
            classes=classes,
            trunk=self.trunk,
            dropout=self.dropout,
            batch_norm_momentum=self.batch_norm_momentum,
            trunk_values=self.trunk_values,
            statistics=self.statistics,
        )


RECIPES = {
    "paper": Recipe(),
    "best": Recipe(
        learning_rate=2e-3,
        schedule="one_cycle",
        epochs=10,
        segments_per_track=8,
        trunk="statistics",
        weight_decay=0.05,
        mixup=0.4,
        batch_norm_momentum=0.1,
        checkpoint="last",
        heads="cosine_lda",
        statistics=True,
    ),
    # `best` with a few hundred updates in all.
    "demo": Recipe(
        learning_rate=4e-3,
        schedule="one_cycle",
        global_batch=16,
        epochs=6,
        trunk="statistics",
        weight_decay=0.05,
        mixup=0.4,
        dropout=0.1,
        batch_norm_momentum=0.1,
        checkpoint="last",
        heads="cosine_lda",
        statistics=True,
    ),
}


def recipe(name: str, *, epochs: int | None = None, alpha: float | None = None) -> Recipe:
    """The recipe of a name, with other values of `epochs` and `alpha` where they are given.

    Raises InputError where there is no such recipe or a value is out of its range.
    """
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}: allowed are {', '.join(RECIPES)}")
    changes: dict[str, Any] = {"epochs": epochs, "alpha": alpha}
    try:
        return replace(RECIPES[name], **{field: value for field, value in changes.items() if value is not None})
    except ValueError as error:
        raise InputError(str(error)) from None
