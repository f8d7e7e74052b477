"""Experiment: many trainings that are to be compared: planned, done one after the other, never done twice."""

import sys
from collections.abc import Callable, Iterable, Sequence

import pyarrow.compute as pc

from mtl_core.dataset import splits
from mtl_core.dataset.mel_files import MelDataset
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError, RunError
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
    """The runs of an experiment in the order in which they are done: a seed and a fold with all its models first.

    Each of `alphas` is one more multi-task model; without them there is that of the recipe's own alpha alone.

    Raises:
        InputError: something is no recipe, task, split, fold, seed or alpha, or a part would be without labels.
    """
    for name, given in (("recipes", recipes), ("tasks", tasks), ("seeds", seeds), ("folds", folds), ("alphas", alphas)):
        if (not given and name != "alphas") or len(set(given)) < len(given):
            raise InputError(f"{name} must be one or more, each once, got {' '.join(map(str, given)) or 'none'}")
    if not set(tasks) <= set(VARIANTS):
        raise InputError(f"tasks must be of {', '.join(VARIANTS)}, got {', '.join(tasks)}")
    learnt = {task for task in TASKS if task in tasks or BOTH in tasks}
    splits.check_arguments(split, tasks=learnt, folds=folds, seeds=seeds)
    if alphas and BOTH not in tasks:
        raise InputError(f"alphas are of the model of both tasks alone, got --tasks {' '.join(tasks)}")
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
        for seed in seeds
        for fold in folds
        for name in recipes
        for variant, alpha in models
    ]
    for seed in seeds:
        for fold in folds:
            _check_parts(mels, split, fold, group_column, seed, {task for run in runs for task in run.of_tasks})
    return runs


def _check_parts(mels: MelDataset, kind: str, fold: int, column: str | None, seed: int, tasks: Iterable[str]) -> None:
    parts = splits.split(mels.tracks, kind=kind, seed=seed, fold=fold, group_column=column)["split"]
    for part in ("train", "test"):
        tracks = mels.tracks.filter(pc.equal(parts, part))
        for task in sorted(tasks):
            if not len(tracks[task].drop_null()):
                raise InputError(f"no track of the {part} part (split {kind}, seed {seed}) has a label for {task!r}")


def run_missing(runs: Sequence[Run], out: Location, work: Callable[[Run], RunResult]) -> list[str]:
    """Do the runs that are not stored under `out`, and store each as it ends.

    A run that fails is told in a line and left open; the others go on.

    Args:
        runs: all of the experiment.
        out: folder of the experiment.
        work: does one run.

    Returns:
        Keys of the runs that failed.
    """
    done = stored_runs(out)
    opened = [run for run in runs if run.key not in done]
    print(f"experiment: {len(runs)} runs, {len(runs) - len(opened)} of them stored", file=sys.stderr, flush=True)
    failed = []
    for i, run in enumerate(opened, start=1):
        print(f"experiment: run {i} of {len(opened)}: {run.key}", file=sys.stderr, flush=True)
        try:
            save_run(work(run), out)
        except (InputError, RunError) as error:
            print(f"experiment: {run.key} failed: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            failed.append(run.key)
    return failed
