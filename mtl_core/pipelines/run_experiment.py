"""Run experiment: train and evaluate models on the same splits and seeds, and write Table 1.

OUT/runs, OUT/models    see `run_store`
OUT/table1.json         Table 1 and, in `alphas`, the effect of alpha
OUT/table1.md           Table 1
OUT/alphas.md           the effect of alpha, if there are runs of other alphas
OUT/report.html         all of it with plots
"""

from collections.abc import Sequence
from functools import partial

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.errors import InputError, RunError
from mtl_core.experiments import run_store
from mtl_core.experiments.alpha_sweep import ALPHA_TITLE, alpha_effects, alpha_section
from mtl_core.experiments.linear_run import linear_result
from mtl_core.experiments.report import render_experiment
from mtl_core.experiments.run_store import LINEAR, MODELS_PATH, Run, RunResult, load_run, run_result, stored_runs
from mtl_core.experiments.runner import ExperimentOptions, plan_runs, run_missing
from mtl_core.experiments.scoring import Scorer
from mtl_core.experiments.segment_logits import segment_logits
from mtl_core.experiments.table1 import build_table1
from mtl_core.experiments.table1_text import table1_sections, table1_title
from mtl_core.experiments.text_tables import to_markdown, to_text
from mtl_core.inference.artifacts.artifact import MODEL_FILE, load_artifact
from mtl_core.pipelines.predict import predict
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.pipelines.workers import cluster
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location


def run_experiment(mels: Location, out: Location, options: ExperimentOptions) -> None:
    """Do the runs that are not stored yet, then compare all stored runs of the same split. Prints Table 1.

    Args:
        mels: folder of mels.
        out: folder of the experiment.
        options: what is trained and compared.

    Raises:
        InputError: an option or the mels are wrong, or no run is stored.
        RunError: runs failed. The files of the other runs are written.
    """
    if options.resamples < 0:
        raise InputError(f"resamples must be >= 0, got {options.resamples}")
    check_writable(out)
    source = open_mel_dataset(mels)
    runs = plan_runs(source, options)
    run_store.check_same(_stored_results(out, options), source.fingerprint, out)
    failed: list[str] = []
    if not options.table_only:
        with cluster.connected(num_cpus=options.num_workers):  # one Ray for all runs
            failed = run_missing(runs, out, partial(_train_run, source=source, mels=mels, out=out, options=options))
    results = _stored_results(out, options)
    if not results:
        raise (RunError if failed else InputError)(f"{out}: no run of the split {options.split!r} is stored")
    songs = source.groups(options.group_column) if options.group_column else None
    _write_tables(results, Scorer(options.resamples, songs), out)
    if failed:
        raise RunError(f"{len(failed)} of {len(runs)} runs failed, e.g. {failed[0]}; the same command tries them again")


def _stored_results(out: Location, options: ExperimentOptions) -> list[RunResult]:
    split = (options.split, options.group_column)
    results = [load_run(key, out) for key in stored_runs(out)]
    return [result for result in results if (result.run.split, result.run.group_column) == split]


def _train_run(run: Run, *, source: MelDataset, mels: Location, out: Location, options: ExperimentOptions) -> RunResult:
    """Train a run's model and predict its test tracks. A model that is already there is not trained again."""
    if run.recipe == LINEAR:
        return linear_result(run, source)
    model = out / MODELS_PATH / run.key
    try:
        if not (model / MODEL_FILE).exists():
            train_options = TrainOptions(
                tasks=run.model_tasks,
                recipe=run.recipe,
                split=run.split,
                fold=run.fold,
                group_column=run.group_column,
                epochs=run.epochs,
                alpha=run.alpha,
                num_workers=options.num_workers,
                use_gpu=options.use_gpu,
                seed=run.seed,
            )
            train(mels, model, train_options)
        artifact = load_artifact(model)
        predictions, training = predict(artifact, source, model, mels, on="test", all_segments=True)
    except (TrainingFailedError, RayError) as error:
        lines = str(error).strip().splitlines() or [""]  # the traceback of every worker; the last line has the cause
        raise RunError(f"{type(error).__name__}: {lines[-1].strip()}") from error
    return run_result(run, artifact, segment_logits(predictions), training)


def _write_tables(results: Sequence[RunResult], scorer: Scorer, out: Location) -> None:
    """Compare the runs, write the files of the comparison and print it."""
    table = build_table1(results, scorer)
    table["alphas"] = alpha_effects(results, scorer)
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
