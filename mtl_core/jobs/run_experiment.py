"""mtl-core run_experiment --mels URI --out URI [--recipes paper] [--split kfold --folds 0 1] [--seeds 0 1 2]"""

import json
from dataclasses import dataclass

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from mtl_core import cli
from mtl_core.dataset.mel_files import open_mel_dataset
from mtl_core.errors import InputError, RunError
from mtl_core.evaluation import metrics
from mtl_core.experiments import alpha_sweep, report, run_store, runner, table1_text
from mtl_core.experiments import table1 as comparison
from mtl_core.experiments.run_store import MODELS, Run, RunResult
from mtl_core.inference import artifact
from mtl_core.pipelines.evaluate import predict
from mtl_core.pipelines.train import train
from mtl_core.pipelines.workers import cluster
from mtl_core.storage.location import Location, as_input_error, check_writable


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train artist-only, language-only and multi-task models on the same splits and seeds and print Table 1.

    Every run is stored as it ends; the same command goes on with those that are not, and other seeds, folds and recipes
    join those that are there.
    """

    mels: str
    """Folder or s3:// prefix of mels, as extract_mels writes them."""
    out: str
    """Folder or s3:// prefix of the experiment: runs, models, table1.json, table1.md, alphas.md, report.html."""
    recipes: tuple[str, ...] = ("paper",)
    """Recipes to train; every other one is compared with paper."""
    tasks: tuple[str, ...] = run_store.VARIANTS
    """Models to train of each: artist, language (alone), both (multi-task)."""
    split: str = "kfold"
    """What is held out: paper, kfold, album or artist (for --tasks language alone)."""
    folds: tuple[int, ...] | None = None
    """Folds of --split kfold, from 0; default: 0 1 2 3 4. Table 1 pools them."""
    group_column: str | None = None
    """Column whose values are never straddled by train and test, by default that of the split; a value that is named
    here counts as one song in the intervals."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits and trainings, >= 0."""
    epochs: int | None = None
    """Passes over the training part, >= 1; by default each recipe's."""
    alphas: tuple[float, ...] = ()
    """More multi-task models, one of each weight of the language loss, >= 0; the one of the recipe's own alpha
    (N_artist / N_language) is always trained. Table 1 is of that alone, alphas.md compares them."""
    num_workers: int = 1
    """Data-parallel workers of a training, >= 1; must divide the recipes' global batches."""
    use_gpu: bool = False
    """One GPU for each worker."""
    resamples: int = metrics.RESAMPLES
    """Resamples of the bootstrap over songs, >= 0; 0 gives no intervals. Segments take a fifth of them."""
    table_only: bool = False
    """Train nothing: print the table of what is stored."""


def main(options: Options) -> int:
    with cli.flag_errors():
        mels, out = Location(options.mels), Location(options.out)
    if options.resamples < 0:
        raise InputError(f"resamples must be >= 0, got {options.resamples}")
    check_writable(out)
    source = open_mel_dataset(mels)
    folds = options.folds or (tuple(range(5)) if options.split == "kfold" else (0,))
    runs = runner.plan_runs(
        source,
        recipes=options.recipes,
        tasks=options.tasks,
        split=options.split,
        folds=folds,
        group_column=options.group_column,
        seeds=options.seeds,
        epochs=options.epochs,
        num_workers=options.num_workers,
        alphas=options.alphas,
    )
    run_store.check_same(_stored(out, options), source.fingerprint, out)
    failed: list[str] = []
    if not options.table_only:
        with cluster.connected(num_cpus=options.num_workers + 2):  # one Ray for all
            failed = runner.run_missing(runs, out, lambda run: _work(run, mels, out, options))
    found = _stored(out, options)
    if not found:
        raise (RunError if failed else InputError)(f"{out}: no run of the split {options.split!r} is stored")
    songs = source.groups(options.group_column) if options.group_column else None
    table = comparison.table(found, resamples=options.resamples, songs=songs)
    table["alphas"] = alpha_sweep.alpha_effects(found, resamples=options.resamples, songs=songs)
    with as_input_error(out):
        (out / "table1.json").write_bytes((json.dumps(table, indent=1, allow_nan=False) + "\n").encode())
        (out / "table1.md").write_bytes(table1_text.table1_markdown(table).encode())
        if table["alphas"]:
            (out / "alphas.md").write_bytes(alpha_sweep.alpha_markdown(table["alphas"]).encode())
        (out / "report.html").write_bytes(report.render_experiment(table, found).encode())
    print(table1_text.format_table1(table))
    if table["alphas"]:
        print("\n" + alpha_sweep.format_alphas(table["alphas"]))
    print(f"-> {out / 'report.html'}")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(runs)} runs failed, {failed[0]} for one; the same command tries them again"
        )
    return cli.DONE


def _stored(out: Location, options: Options) -> list[RunResult]:
    """The stored runs of the split asked for."""
    found = [run_store.load_run(key, out) for key in run_store.stored_runs(out)]
    wanted = (options.split, options.group_column)
    return [result for result in found if (result.run.split, result.run.group_column) == wanted]


def _work(run: Run, mels: Location, out: Location, options: Options) -> RunResult:
    """Train and evaluate; a model that is there, its evaluation cut off, is not trained again."""
    model = out / MODELS / run.key
    try:
        if not (model / artifact.MODEL_FILE).exists():
            train(
                mels=mels,
                out=model,
                tasks=run.of_tasks,
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
        trained, heard, training = predict(model=model, mels=mels)
    except (TrainingFailedError, RayError) as error:
        said = str(error).strip().splitlines() or [""]  # a trace of every worker, what went wrong in its last line
        raise RunError(f"{type(error).__name__}: {said[-1].strip()}") from error
    return run_store.result(run, trained, heard, training)
