"""Training check: the flags of a training, checked together before any data is read.

The same check serves a single training and every run of an experiment.
"""

from collections.abc import Sequence

from mtl_core.dataset import splits
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError


def check_training(
    *, tasks: Sequence[str], global_batch: int, num_workers: int, split: str, fold: int, seed: int
) -> None:
    """Check what a training is asked for.

    Args:
        tasks: of `TASKS`, at least one.
        global_batch: of the recipe; must be divisible by `num_workers`.
        num_workers: data-parallel workers, >= 1.
        split: one of `splits.KINDS`. The split `artist` has no artist in both train and test, so it allows the task
            language only.
        fold: 0 unless the split is `kfold`.
        seed: 0 to 2**32 - 1.

    Raises:
        InputError: a value is not allowed.
    """
    if not tasks or not set(tasks) <= set(TASKS):
        raise InputError(f"tasks must be of {', '.join(TASKS)}, got {', '.join(tasks) or 'none'}")
    if num_workers < 1 or global_batch % num_workers:
        raise InputError(f"num-workers must divide the global batch of {global_batch}, got {num_workers}")
    if split not in splits.KINDS:
        raise InputError(f"no split {split!r}: allowed are {', '.join(splits.KINDS)}")
    if split == "artist" and "artist" in tasks:
        raise InputError("the split 'artist' has no artist in both train and test: train with --tasks language")
    if fold and split != "kfold":
        raise InputError(f"fold {fold} is of the split 'kfold' alone, got {split!r}")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be 0 to {2**32 - 1}, got {seed}")
