"""Out-of-fold scores: how good a cross-fitted model is, by what its fold models say of tracks new to them.

Songs of known artists are scored as new tracks of the catalogue are; songs of unknown artists tell whether a name is
withheld where it should be.

Legend: N tracks, C classes, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.evaluation import metrics
from mtl_core.evaluation.bootstrap import confidence_interval, draw_songs
from mtl_core.evaluation.reliability import calibration_error
from mtl_core.inference.calibration.out_of_fold import FoldScores, auroc, labelled, score_tracks
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.softmax import probabilities
from mtl_core.inference.tagging.unknown import PROBABILITY, precision_and_coverage

ARRAY_VALUES = 20_000_000  # tracks x classes that are scored; of more tracks a random part is
UNKNOWN_SHARES = (0.1, 0.5, 0.9, 0.99)
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


def score_out_of_fold(
    folds: Sequence[FoldScores],
    aggregation: Aggregation,
    vocabularies: Mapping[str, Vocabulary],
    *,
    unknown_share: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The scores of each task, as JSON values.

    Args:
        folds: of every fold model.
        aggregation: of the final model, calibrated on the folds.
        vocabularies: of the final model.
        unknown_share: share of tracks of unknown artists, for which `unknown` is computed.
        resamples, seed: of the bootstrap, over songs; over artists where known and unknown artists are told apart.

    Returns:
        task -> `labels`; `tracks`: `metrics.scores` of the songs of known artists; `ece_before`: the calibration error
        without the temperature; `unknown`: see `_score_unknown`; `unknown_artists`: the number of labelled songs of
        unknown artists and, for the language, `metrics.scores` of them; `sampled`: what is of a random part.
    """
    return {
        task: _score_task(folds, aggregation, task, vocabulary, unknown_share, resamples, seed)
        for task, vocabulary in vocabularies.items()
    }


def _score_task(
    folds: Sequence[FoldScores],
    aggregation: Aggregation,
    task: str,
    vocabulary: Vocabulary,
    unknown_share: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    of_task = [fold.select(fold.segments_N > 0) for fold in folds if task in fold.heads]
    known = [fold.select(fold.known_N & (fold.targets(task) != MISSING)) for fold in of_task]
    unknown = [fold.select(~fold.known_N & (fold.targets(task) != MISSING)) for fold in of_task]
    p_NC, targets_N, songs_N, sampled = _pooled(known, task, vocabulary, aggregation.temperature[task], seed)
    plain_NC, *_ = _pooled(known, task, vocabulary, 1.0, seed)
    draws = draw_songs(songs_N, resamples=0, seed=seed)
    before, _, _ = calibration_error(plain_NC.max(1), plain_NC.argmax(1) == targets_N, songs_N, draws)
    values: dict[str, Any] = {
        "labels": list(vocabulary.labels),
        "tracks": metrics.scores(p_NC, targets_N, songs_N, resamples=resamples, seed=seed),
        "ece_before": before,
        "unknown": _score_unknown(of_task, aggregation, task, unknown_share, resamples, seed),
        "unknown_artists": {"n": sum(len(fold.tracks) for fold in unknown)},
        "sampled": {"tracks": sampled} if sampled else {},
    }
    if task == "language" and values["unknown_artists"]["n"]:
        p_NC, targets_N, songs_N, _ = _pooled(unknown, task, vocabulary, aggregation.temperature[task], seed)
        values["unknown_artists"] |= metrics.scores(p_NC, targets_N, songs_N, resamples=resamples, seed=seed)
    return values


def _pooled(
    folds: Sequence[FoldScores], task: str, vocabulary: Vocabulary, temperature: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Probabilities (N, C) over the classes of the final model, targets and songs, and what was sampled."""
    n = sum(len(fold.tracks) for fold in folds)
    share = min(1.0, ARRAY_VALUES / max(1, n * len(vocabulary)))
    p, targets, songs = [np.zeros((0, len(vocabulary)))], [np.zeros(0, np.int64)], [np.zeros(0, str)]
    for fold in folds:
        part = fold.select(np.random.default_rng((seed, fold.fold)).random(len(fold.tracks)) < share)
        p_NC = np.zeros((len(part.tracks), len(vocabulary)))
        if len(part.tracks):
            logits_NK = part.heads[task].all_logits(part.embedding_NE)
            p_NC[:, vocabulary.encode(part.vocabularies[task].labels)] = probabilities(logits_NK, temperature)
        p.append(p_NC)
        targets.append(vocabulary.encode(part.tracks[task].to_pylist()))
        songs.append(np.array(part.tracks["track_id"].to_pylist(), str))
    text = "" if share == 1 else f"a random part of {sum(map(len, targets)):,} of {n:,} tracks"
    return np.concatenate(p), np.concatenate(targets), np.concatenate(songs), text


def _score_unknown(
    folds: Sequence[FoldScores], aggregation: Aggregation, task: str, unknown_share: float, resamples: int, seed: int
) -> dict[str, Any]:
    """How well names are withheld.

    Returns:
        `score` and `threshold` of the aggregation; `auroc` of songs of known against those of unknown artists, and its
        `ci`; `named`: for each of `UNKNOWN_SHARES` the precision of the names and the coverage of known artists' songs;
        `curve`: precision at rising coverage at the stated share of unknown tracks, by the aggregation's score and by
        the highest probability.
    """
    rows = [labelled(fold, task) for fold in folds]
    known_N = np.concatenate([fold.known_N for fold in rows])
    artists_N = np.concatenate([np.array(fold.tracks["artist"].to_pylist(), str) for fold in rows])
    scored = [score_tracks(fold, task, aggregation.temperature[task], aggregation.shortest[task]) for fold in rows]
    right_N = np.concatenate([right_N for right_N, _ in scored])
    chosen_N, probability_N = (
        np.concatenate([scores[name] for _, scores in scored]) for name in (aggregation.score[task], PROBABILITY)
    )
    threshold = aggregation.threshold[task]
    named = []
    for share in UNKNOWN_SHARES:
        precision_1, coverage_1 = precision_and_coverage(
            chosen_N, right_N, known_N, np.array([-np.inf if threshold is None else threshold]), unknown_share=share
        )
        named.append({"unknown_share": share, "precision": _number(precision_1[0]), "coverage": _number(coverage_1[0])})
    value = auroc(chosen_N, known_N)
    names_G, counts_RG = draw_songs(artists_N, resamples=resamples // 5, seed=seed)
    member_N = np.searchsorted(names_G, artists_N)
    resampled = [auroc(np.repeat(chosen_N, w), np.repeat(known_N, w)) for w in (c[member_N] for c in counts_RG)]
    return {
        "score": aggregation.score[task],
        "threshold": threshold,
        "auroc": value,
        "auroc_of_probability": auroc(probability_N, known_N),
        "ci": confidence_interval(np.array(resampled), value),
        "named": named,
        "curve": {
            name: _precision_at_coverages(scores_N, right_N, known_N, unknown_share)
            for name, scores_N in (("chosen", chosen_N), ("probability", probability_N))
        },
    }


def _precision_at_coverages(
    scores_N: np.ndarray, right_N: np.ndarray, known_N: np.ndarray, unknown_share: float
) -> list[float | None]:
    """The precision of the names where so many of the known artists' songs are named: a value for each coverage."""
    if not known_N.any():
        return [None] * len(COVERAGES)
    thresholds_K = np.quantile(scores_N[known_N], 1 - np.array(COVERAGES), method="lower")
    precision_K, _ = precision_and_coverage(scores_N, right_N, known_N, thresholds_K, unknown_share=unknown_share)
    return [_number(value) for value in precision_K]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
