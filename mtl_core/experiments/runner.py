"""Runner: the runs of an experiment are planned, then done one after the other. A stored run is not done again."""

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow.compute as pc

from mtl_core.dataset import splits
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError, RunError, one_line
from mtl_core.experiments.run_store import BOTH, VARIANTS, Run, RunResult, save_run, stored_runs
from mtl_core.model.recipes import recipe
from mtl_core.storage.location import Location


def plan_runs(
    mels: MelDataset,
    *,
    recipes: Sequence[str],
    tasks: Sequence[str],
    split: str,
    folds: Sequence[int],
    group_column: str | None,
    seeds: Sequence[int],
    epochs: int | None,
    num_workers: int,
    alphas: Sequence[float] = (),
) -> list[Run]:
    """The runs of an experiment in the order in which they are done: all models of a seed and fold together.

    Args:
        mels: the tracks that are split.
        recipes: names of recipes.
        tasks: of `VARIANTS`.
        split, folds, group_column, seeds: see `splits.split`; folds is (0,) unless the split is `kfold`.
        epochs: of every run; None: each recipe's own.
        num_workers: data-parallel workers of a training, >= 1.
        alphas: one more model of both tasks for each. The model of the recipe's own alpha is always among the runs.

    Raises:
        InputError: a value is not allowed, or a training or test set would have no label for a task.
    """
    _check_lists(recipes=recipes, tasks=tasks, seeds=seeds, folds=folds, alphas=alphas)
    if not set(tasks) <= set(VARIANTS):
        raise InputError(f"tasks must be of {', '.join(VARIANTS)}, got {', '.join(tasks)}")
    trained_tasks = {task for task in TASKS if task in tasks or BOTH in tasks}
    splits.check_arguments(split, tasks=trained_tasks, folds=folds, seeds=seeds)
    if alphas and BOTH not in tasks:
        raise InputError(f"alphas are only for the model of both tasks, got --tasks {' '.join(tasks)}")
    models = [(variant, None) for variant in VARIANTS if variant in tasks] + [(BOTH, alpha) for alpha in alphas]
    for name in recipes:
        recipe(name, epochs=epochs).check_workers(num_workers)
    runs = [
        Run(
            recipe=name,
            tasks=variant,
            split=split,
            fold=fold,
            group_column=group_column,
            seed=seed,
            epochs=recipe(name, epochs=epochs, alpha=alpha).epochs,
            alpha=alpha,
        )
        for seed, fold, name, (variant, alpha) in itertools.product(seeds, folds, recipes, models)
    ]
    for seed, fold in itertools.product(seeds, folds):
        _check_labels(mels, split, fold, group_column, seed, {task for run in runs for task in run.model_tasks})
    return runs


def _check_lists(**lists: Sequence[Any]) -> None:
    for name, values in lists.items():
        if (not values and name != "alphas") or len(set(values)) < len(values):
            raise InputError(f"{name} must be one or more, each once, got {' '.join(map(str, values)) or 'none'}")


def _check_labels(
    mels: MelDataset, kind: str, fold: int, group_column: str | None, seed: int, tasks: Iterable[str]
) -> None:
    """Raise an InputError if no training track or no test track has a label for one of the tasks."""
    split_of = splits.split(mels.tracks, kind=kind, seed=seed, fold=fold, group_column=group_column)["split"]
    for name in ("train", "test"):
        tracks = mels.tracks.filter(pc.equal(split_of, name))
        for task in sorted(tasks):
            if not len(tracks[task].drop_null()):
                raise InputError(f"no track of the {name} part (split {kind}, seed {seed}) has a label for {task!r}")


def run_missing(runs: Sequence[Run], out: Location, train_run: Callable[[Run], RunResult]) -> list[str]:
    """Do the runs that are not stored under `out`, and store each when it ends.

    A run that fails is reported in one line and not stored. The other runs are done all the same.

    Args:
        runs: all runs of the experiment.
        out: folder of the experiment.
        train_run: does one run.

    Returns:
        Keys of the runs that failed.
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
    print(f"experiment: {text}", file=sys.stderr, flush=True)
