"""mtl-core evaluate --model URI --out URI (--mels URI [--on PART] | --against URI [--mels URI] [--tags OUT])"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.errors import InputError
from mtl_core.evaluation.pages import report
from mtl_core.evaluation.pages.comparison_page import verdict
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.pipelines.compare import ComparisonOptions, compare
from mtl_core.pipelines.evaluate import EvaluationOptions, evaluate
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """Score a model on labelled tracks: metrics.json, predictions.parquet and a report with plots. Or compare it with
    another one: comparison.json and a page; exit status 5 where it is worse."""

    model: str
    """Folder or s3:// prefix of the artifact, as train writes it; or a model pointer, see promote."""
    mels: str | None = None
    """Folder or s3:// prefix of mels, made with the front end of the model. Not needed to compare two cross-fitted
    models."""
    out: str
    """Folder or s3:// prefix for the results; existing files are replaced."""
    against: str | None = None
    """The model in use: --model is compared with it, on tracks that neither was trained on."""
    margin: float = 0.0
    """Loss of AUC-PR against it that is accepted, 0 to 1: --model is worse where the whole 95 % interval of the
    difference is below it."""
    tags: str | None = None
    """The OUT of the nights with the model in use: how its tags would change is counted on 100,000 rows of the table,
    or on decoded tracks where the models have another trunk."""
    decoded_tracks: int = 100
    """How many tracks are decoded for that, 1 or more."""


def main(options: Options) -> int:
    with cli.flag_errors():
        model, out = find_model(options.model), Location(options.out)
        mels = None if options.mels is None else Location(options.mels)
        in_use = None if options.against is None else find_model(options.against)
        comparison = None
        if in_use is not None:
            comparison = ComparisonOptions(
                margin=options.margin,
                resamples=options.resamples,
                seed=options.seed,
                num_workers=options.num_workers,
                decoded_tracks=options.decoded_tracks,
            )
        tags = None if options.tags is None else Location(options.tags)
    if in_use is not None and comparison is not None:
        if options.on is not None:
            raise InputError("--on is not for --against: models are compared on tracks that neither was trained on")
        result = compare(model, in_use, mels, out, comparison, tags)
        print(verdict(result))
        print(f"-> {out / 'comparison.html'}")
        return cli.WORSE if result["worse"] else cli.DONE
    if tags is not None:
        raise InputError("--tags is for --against: it counts how the tags of a night would change")
    if options.margin:
        raise InputError(f"--margin {options.margin:g} is for --against: it says how much worse --model may be")
    if mels is None:
        raise InputError("--mels: give the mels to score the model on")
    print(report.format_report(evaluate(model, mels, out, options)))
    print(f"-> {out / 'report.html'}")
    return cli.DONE
