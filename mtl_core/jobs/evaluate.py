"""mtl-core evaluate --model URI --mels URI --out URI [--on train|validation|test|all]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.evaluation import report
from mtl_core.pipelines.evaluate import evaluate
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Score a model on labelled tracks: metrics.json, predictions.parquet and a report with plots."""

    model: str
    """Folder or s3:// prefix of the artifact, as train writes it."""
    mels: str
    """Folder or s3:// prefix of mels, made with the front end of the model."""
    out: str
    """Folder or s3:// prefix for metrics.json, report.html and predictions.parquet; existing files are replaced."""
    on: str = "test"
    """Tracks to score, by the model's own splits: train, validation, test, or all (also tracks outside the splits)."""
    resamples: int = 1000
    """Resamples of the bootstrap over songs, >= 0; 0 for no intervals."""
    seed: int = 0
    """Seed of the bootstrap, >= 0."""
    num_workers: int | None = None
    """Worker processes; by default one for each CPU of the cluster."""


def main(options: Options) -> None:
    with cli.flag_errors():
        model, mels, out = Location(options.model), Location(options.mels), Location(options.out)
    result = evaluate(
        model=model,
        mels=mels,
        out=out,
        on=options.on,
        resamples=options.resamples,
        seed=options.seed,
        workers=options.num_workers,
    )
    print(report.format_report(result))
    print(f"-> {out / 'report.html'}")
