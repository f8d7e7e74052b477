"""Recipe: every number of a training, under a name.

`paper` is the source's (Singh & Biswas, completed by Keras' defaults) and stays as it is: better recipes stand beside
it.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mtl_core.errors import InputError

Schedule = Literal["constant", "one_cycle"]

WARM_UP_SHARE = 0.2  # of a one_cycle training: the learning rate rises, then falls


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of one training.

    Args:
        learning_rate: Adam's, at its peak; > 0.
        schedule: "constant"; "one_cycle" rises linearly over the first fifth, then falls to 0 on a cosine.
        adam_eps: added to the root of Adam's second moment; Keras' 1e-7, not torch's 1e-8.
        global_batch: segments of one update, over all workers; >= 1.
        epochs: passes over the training part; >= 1.
        alpha: weight of the language loss beside the artist loss, >= 0; None is N_artist / N_language.
        trunk: of the model, one of `model.TRUNKS`.
        weight_decay: the share of a weight that a learning rate of 1 would take off at each update (AdamW), >= 0.
        mixup: each segment is blended with another, in shares drawn from Beta(mixup, mixup); 0 is without.
        patience: epochs without a better validation loss after which training ends, >= 1; None: never early.
        dropout: share of activations dropped after each block, in [0, 1).
        batch_norm_momentum: weight of a batch in the running statistics, in (0, 1]; Keras' 0.99 is 0.01 here.
        shuffle_segments: segments that a worker holds to draw its batches from, >= 1; 36 KB each.

    Raises:
        ValueError: a value is out of its range.
    """

    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    adam_eps: float = 1e-7
    global_batch: int = 32
    epochs: int = 100
    alpha: float | None = None
    trunk: str = "paper"
    weight_decay: float = 0.0
    mixup: float = 0.0
    patience: int | None = None
    dropout: float = 0.25
    batch_norm_momentum: float = 0.01
    shuffle_segments: int = 4096

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {get_args(Schedule)}, got {self.schedule!r}")
        if not self.learning_rate > 0 or not self.adam_eps > 0:
            raise ValueError(f"learning_rate and adam_eps must be > 0, got {self.learning_rate} and {self.adam_eps}")
        for name in ("global_batch", "epochs", "shuffle_segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("weight_decay", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be None or >= 1, got {self.patience}")
        if self.alpha is not None and not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be None, or >= 0 and finite, got {self.alpha}")
        if not 0 <= self.dropout < 1 or not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                "dropout must be in [0, 1) and batch_norm_momentum in (0, 1], "
                f"got {self.dropout} and {self.batch_norm_momentum}"
            )

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of all updates are done."""
        if self.schedule == "constant":
            return self.learning_rate
        if progress < WARM_UP_SHARE:
            return self.learning_rate * (0.04 + 0.96 * progress / WARM_UP_SHARE)
        fall = (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
        return self.learning_rate * (1 + math.cos(math.pi * fall)) / 2


RECIPES = {
    "paper": Recipe(),
    # What helped on hard data, see docs/recipes.md.
    "best": Recipe(
        learning_rate=2e-3,
        schedule="one_cycle",
        epochs=30,
        trunk="statistics",
        weight_decay=0.05,
        mixup=0.4,
        batch_norm_momentum=0.1,
    ),
    # A few hundred updates: the running statistics must follow them, and the learning rate end near 0.
    "demo": Recipe(
        learning_rate=4e-3,
        schedule="one_cycle",
        global_batch=16,
        epochs=14,
        dropout=0.1,
        batch_norm_momentum=0.1,
    ),
}


def recipe(name: str, *, epochs: int | None = None, alpha: float | None = None) -> Recipe:
    """A recipe by its name, with another number of epochs and another alpha where they are given.

    Raises:
        InputError: no such recipe, or a number that it may not have.
    """
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}: allowed are {', '.join(RECIPES)}")
    found = RECIPES[name]
    try:
        found = found if epochs is None else replace(found, epochs=epochs)
        return found if alpha is None else replace(found, alpha=alpha)
    except ValueError as error:
        raise InputError(str(error)) from None
