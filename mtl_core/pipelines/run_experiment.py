"""Run experiment: train and evaluate models on the same splits and seeds, and write Table 1.

OUT/runs, OUT/models    see `run_store`
OUT/table1.json         Table 1 and, in `alphas`, the effect of alpha
OUT/table1.md           Table 1
OUT/alphas.md           the effect of alpha, if there are runs of other alphas
OUT/report.html         all of it with plots
"""

from collections.abc import Mapping, Sequence
from functools import partial

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.errors import InputError, RunError
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.experiments import run_store
from mtl_core.experiments.alpha_sweep import ALPHA_TITLE, alpha_effects, alpha_section
from mtl_core.experiments.report import render_experiment
from mtl_core.experiments.run_store import MODELS_PATH, Run, RunResult, load_run, run_result, stored_runs
from mtl_core.experiments.runner import plan_runs, run_missing
from mtl_core.experiments.table1 import build_table1
from mtl_core.experiments.table1_text import table1_sections, table1_title
from mtl_core.experiments.text_tables import to_markdown, to_text
from mtl_core.inference.artifact import MODEL_FILE
from mtl_core.pipelines.evaluate import predict
from mtl_core.pipelines.train import train
from mtl_core.pipelines.workers import cluster
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location

KFOLDS = (0, 1, 2, 3, 4)


def run_experiment(
    *,
    mels: Location,
    out: Location,
    recipes: Sequence[str] = ("paper",),
    tasks: Sequence[str] = run_store.VARIANTS,
    split: str = "kfold",
    folds: Sequence[int] | None = None,
    group_column: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    alphas: Sequence[float] = (),
    num_workers: int = 1,
    use_gpu: bool = False,
    resamples: int = RESAMPLES,
    table_only: bool = False,
) -> None:
    """Do the runs that are not stored yet, then compare all stored runs of the same split. Prints Table 1.

    Args:
        mels: folder of mels.
        out: folder of the experiment.
        recipes, tasks, split, group_column, seeds, epochs, alphas, num_workers: see `runner.plan_runs`.
        folds: for the split `kfold`; None: `KFOLDS`.
        use_gpu: one GPU a worker.
        resamples: of the bootstrap over songs, >= 0.
        table_only: train nothing.

    Raises:
        InputError: an argument or the mels are wrong, or no run is stored.
        RunError: runs failed. The files of the other runs are written.
    """
    if resamples < 0:
        raise InputError(f"resamples must be >= 0, got {resamples}")
    check_writable(out)
    source = open_mel_dataset(mels)
    runs = plan_runs(
        source,
        recipes=recipes,
        tasks=tasks,
        split=split,
        folds=folds or (KFOLDS if split == "kfold" else (0,)),
        group_column=group_column,
        seeds=seeds,
        epochs=epochs,
        num_workers=num_workers,
        alphas=alphas,
    )
    run_store.check_same(_stored_results(out, split, group_column), source.fingerprint, out)
    failed: list[str] = []
    if not table_only:
        with cluster.connected(num_cpus=num_workers):  # one Ray for all runs
            train_run = partial(_train_run, mels=mels, out=out, num_workers=num_workers, use_gpu=use_gpu)
            failed = run_missing(runs, out, train_run)
    results = _stored_results(out, split, group_column)
    if not results:
        raise (RunError if failed else InputError)(f"{out}: no run of the split {split!r} is stored")
    _write_tables(results, out, resamples, songs=source.groups(group_column) if group_column else None)
    if failed:
        raise RunError(f"{len(failed)} of {len(runs)} runs failed, e.g. {failed[0]}; the same command tries them again")


def _stored_results(out: Location, split: str, group_column: str | None) -> list[RunResult]:
    """The stored runs of this split."""
    results = [load_run(key, out) for key in stored_runs(out)]
    return [result for result in results if (result.run.split, result.run.group_column) == (split, group_column)]


def _train_run(run: Run, *, mels: Location, out: Location, num_workers: int, use_gpu: bool) -> RunResult:
    """Train a run's model and predict its test tracks. A model that is already there is not trained again."""
    model = out / MODELS_PATH / run.key
    try:
        if not (model / MODEL_FILE).exists():
            train(
                mels=mels,
                out=model,
                tasks=run.model_tasks,
                recipe=run.recipe,
                split=run.split,
                fold=run.fold,
                group_column=run.group_column,
                epochs=run.epochs,
                alpha=run.alpha,
                num_workers=num_workers,
                use_gpu=use_gpu,
                seed=run.seed,
            )
        artifact, predictions, training = predict(model=model, mels=mels)
    except (TrainingFailedError, RayError) as error:
        lines = str(error).strip().splitlines() or [""]  # the traceback of every worker; the last line has the cause
        raise RunError(f"{type(error).__name__}: {lines[-1].strip()}") from error
    return run_result(run, artifact, predictions, training)


def _write_tables(results: Sequence[RunResult], out: Location, resamples: int, songs: Mapping[str, str] | None) -> None:
    """Compare the runs, write the files of the comparison and print it."""
    table = build_table1(results, resamples=resamples, songs=songs)
    table["alphas"] = alpha_effects(results, resamples=resamples, songs=songs)
    documents = {"table1.md": (table1_title(table), table1_sections(table))}
    if table["alphas"]:
        documents["alphas.md"] = (ALPHA_TITLE, [alpha_section(table["alphas"])])
    with as_input_error(out):
        (out / "table1.json").write_json(table)
        for name, (title, sections) in documents.items():
            (out / name).write_bytes(to_markdown(title, sections).encode())
        (out / "report.html").write_bytes(render_experiment(table, results).encode())
    for title, sections in documents.values():
        print(to_text(title, sections), end="\n\n")
    print(f"-> {out / 'report.html'}")
