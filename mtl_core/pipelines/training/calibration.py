"""Calibration: from the held-out tracks of trained models to temperatures, thresholds and out-of-fold scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.evaluation.out_of_fold import score_out_of_fold
from mtl_core.inference.calibration.out_of_fold import FoldScores, calibrate, out_of_fold_table
from mtl_core.inference.calibration.rounds import calibrate_rounds
from mtl_core.inference.calibration.temperature import fit_temperature
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head, read_heads
from mtl_core.pipelines.training.train_data import ModelData
from mtl_core.pipelines.training.train_loop import TrainResult


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What held-out tracks tell."""

    aggregation: Aggregation  # of the final model
    rows: pa.Table | None = None  # of `schema.OUT_OF_FOLD`; None: the model is not cross-fitted
    scores: dict[str, dict[str, Any]] | None = None  # of `score_out_of_fold`, with the linear baseline
    early_exit: dict[str, Any] | None = None  # of `calibrate_rounds`


def calibrate_on_folds(
    results: Sequence[TrainResult],
    models: Sequence[ModelData],
    vocabularies: Mapping[str, Vocabulary],
    *,
    precision: float,
    unknown_share: float,
    seed: int,
) -> Calibration:
    """Calibrate a cross-fitted model of these vocabularies on the held-out tracks of its fold models.

    `precision` and `unknown_share` are those of `unknown.choose_threshold`. The linear baseline is calibrated alike.
    """

    def calibrated(folds: Sequence[FoldScores]) -> tuple[Aggregation, dict[str, dict[str, Any]]]:
        aggregation = calibrate(folds, list(vocabularies), precision=precision, unknown_share=unknown_share, seed=seed)
        scores = score_out_of_fold(
            folds, aggregation, vocabularies, unknown_share=unknown_share, resamples=RESAMPLES, seed=seed
        )
        return aggregation, scores

    folds = [_fold_scores(*pair) for pair in zip(results, models, strict=True)]
    aggregation, scores = calibrated(folds)
    aggregation, early_exit = calibrate_rounds(
        folds, aggregation, precision=precision, unknown_share=unknown_share, seed=seed
    )
    _, baseline = calibrated([_linear_scores(*pair) for pair in zip(results, models, strict=True)])
    for task in vocabularies:
        scores[task]["baselines"] = {"linear": baseline[task]["tracks"]}
    return Calibration(
        aggregation=aggregation, rows=out_of_fold_table(folds, aggregation), scores=scores, early_exit=early_exit
    )


def calibrate_on_validation(result: TrainResult, model: ModelData, tasks: Sequence[str]) -> Calibration:
    """The temperatures that calibrate the validation tracks; 1 without any."""
    scores = _fold_scores(result, model)
    has_sound = scores.select(scores.segments_N > 0)
    temperature = {
        task: fit_temperature(has_sound.heads[task].all_logits(has_sound.embedding_NE), has_sound.targets(task))
        for task in tasks
    }
    return Calibration(aggregation=Aggregation(temperature=temperature))


def _fold_scores(result: TrainResult, model: ModelData) -> FoldScores:
    """What a trained model says of its held-out tracks."""
    return FoldScores(
        fold=-1 if model.fold is None else model.fold,
        tracks=model.tracks["held_out"],
        known_N=model.known_N,
        embedding_NE=result.held_out.mean_NE,
        segments_N=result.held_out.segments_N,
        heads=read_heads(result.weights, model.vocabularies),
        vocabularies=model.vocabularies,
        read_N=result.held_out.read_N,
        rounds={end: (means.mean_NE, means.count_N) for end, means in result.held_out_rounds.items()},
    )


def _linear_scores(result: TrainResult, model: ModelData) -> FoldScores:
    """What the linear baseline says of the held-out tracks of a trained model."""
    assert result.linear is not None
    return replace(
        _fold_scores(result, model),
        embedding_NE=result.linear.held_out.mean_NE,
        rounds={},
        heads={task: Head(*head) for task, head in result.linear.heads.items()},
    )
