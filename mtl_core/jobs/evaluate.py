"""mtl-core evaluate --model URI --mels URI --out URI [--on train|validation|test|all]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.evaluation import report
from mtl_core.inference.model_pointer import find_model
from mtl_core.pipelines.evaluate import EvaluationOptions, evaluate
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """Score a model on labelled tracks: metrics.json, predictions.parquet and a report with plots."""

    model: str
    """Folder or s3:// prefix of the artifact, as train writes it; or a model pointer, see promote."""
    mels: str
    """Folder or s3:// prefix of mels, made with the front end of the model."""
    out: str
    """Folder or s3:// prefix for metrics.json, report.html and predictions.parquet; existing files are replaced."""


def main(options: Options) -> None:
    with cli.flag_errors():
        model, mels, out = find_model(options.model), Location(options.mels), Location(options.out)
    print(report.format_report(evaluate(model, mels, out, options)))
    print(f"-> {out / 'report.html'}")
