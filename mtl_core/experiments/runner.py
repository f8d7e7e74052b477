"""Runner: the runs of an experiment are planned, then done one after the other. A stored run is not done again."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from mtl_core import log
from mtl_core.dataset import splits
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError, RunError, one_line
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.experiments.run_store import BOTH, LINEAR, VARIANTS, Run, RunResult, save_run, stored_runs
from mtl_core.model.recipes import recipe
from mtl_core.storage.location import Location

KFOLDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """The runs of an experiment, and how they are compared."""

    recipes: tuple[str, ...] = ("paper",)
    """Recipes to train; every other recipe is compared with paper, and all of them with the linear baseline."""
    tasks: tuple[str, ...] = VARIANTS
    """Models to train with each recipe: artist, language (one task only), both (multi-task)."""
    split: str = "kfold"
    """What is held out: paper, kfold, album or artist (only with --tasks language)."""
    folds: tuple[int, ...] | None = None
    """Folds of --split kfold, from 0; default: 0 1 2 3 4. Table 1 pools them."""
    group_column: str | None = None
    """Column of groups: no group is in both train and test. By default the column of the split. If a column is named
    here, a group counts as one song in the intervals."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits and trainings, >= 0."""
    epochs: int | None = None
    """Passes over the training tracks, >= 1; by default each recipe's own."""
    alphas: tuple[float, ...] = ()
    """Weights of the language loss, >= 0: one more multi-task model for each. The model of the recipe's own alpha
    (N_artist / N_language) is always trained. Only that one is in Table 1; alphas.md compares all of them."""
    num_workers: int = 1
    """Data-parallel workers of a training, >= 1; the recipes' global batches must be divisible by it."""
    use_gpu: bool = False
    """One GPU for each worker."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over songs, >= 0; 0 for no intervals. Segments get a fifth of them."""
    table_only: bool = False
    """Train nothing, only print the table of the stored runs."""


def plan_runs(mels: MelDataset, options: ExperimentOptions) -> list[Run]:
    """The runs of an experiment in the order in which they are done: all models of a seed and fold together.

    The linear baseline comes first in each of them.

    Raises:
        InputError: a value is not allowed, or a training or test set would have no label for a task.
    """
    tasks, seeds, split = options.tasks, options.seeds, options.split
    folds = options.folds or (KFOLDS if split == "kfold" else (0,))
    _check_lists(recipes=options.recipes, tasks=tasks, seeds=seeds, folds=folds, alphas=options.alphas)
    if not set(tasks) <= set(VARIANTS):
        raise InputError(f"tasks must be of {', '.join(VARIANTS)}, got {', '.join(tasks)}")
    trained_tasks = [task for task in TASKS if task in tasks or BOTH in tasks]
    splits.check_arguments(split, tasks=trained_tasks, folds=folds, seeds=seeds)
    if options.alphas and BOTH not in tasks:
        raise InputError(f"alphas are only for the model of both tasks, got --tasks {' '.join(tasks)}")
    models: list[tuple[str, float | None]] = [(variant, None) for variant in VARIANTS if variant in tasks]
    models += [(BOTH, alpha) for alpha in options.alphas]
    for name in options.recipes:
        recipe(name, epochs=options.epochs).check_workers(options.num_workers)
    baseline = (LINEAR, BOTH if set(trained_tasks) == set(TASKS) else trained_tasks[0], None, 0)
    trained = [
        (name, variant, alpha, recipe(name, epochs=options.epochs, alpha=alpha).epochs)
        for name, (variant, alpha) in itertools.product(options.recipes, models)
    ]
    runs = [
        Run(
            recipe=name,
            tasks=variant,
            split=split,
            fold=fold,
            group_column=options.group_column,
            seed=seed,
            epochs=epochs,
            alpha=alpha,
        )
        for seed, fold, (name, variant, alpha, epochs) in itertools.product(seeds, folds, [baseline, *trained])
    ]
    for seed, fold in itertools.product(seeds, folds):
        part = splits.split(mels.tracks, kind=split, seed=seed, fold=fold, group_column=options.group_column)["split"]
        for name, task in itertools.product(("train", "test"), trained_tasks):
            if not len(mels.tracks[task].filter(pc.equal(part, name)).drop_null()):
                raise InputError(f"no track of the {name} part (split {split}, seed {seed}) has a label for {task!r}")
    return runs


def _check_lists(**lists: Sequence[Any]) -> None:
    for name, values in lists.items():
        if (not values and name != "alphas") or len(set(values)) < len(values):
            raise InputError(f"{name} must be one or more, each once, got {' '.join(map(str, values)) or 'none'}")


def run_missing(runs: Sequence[Run], out: Location, train_run: Callable[[Run], RunResult]) -> list[str]:
    """Do the runs that are not stored under `out`, store each when it ends, and return the keys of those that failed.

    A run that fails is reported in one line and not stored. The other runs are done all the same.
    """
    stored = set(stored_runs(out))
    missing = [run for run in runs if run.key not in stored]
    _print_progress(f"{len(runs)} runs, {len(runs) - len(missing)} of them stored")
    failed = []
    for i, run in enumerate(missing, start=1):
        _print_progress(f"run {i} of {len(missing)}: {run.key}")
        try:
            save_run(train_run(run), out)
        except (InputError, RunError) as error:
            _print_progress(f"{run.key} failed: {one_line(error)}")
            failed.append(run.key)
    return failed


def _print_progress(text: str) -> None:
    log.event("progress", f"experiment: {text}")
