"""Round calibration: what the first segments of out-of-fold tracks tell, and when they are enough.

The numbers of each round (temperature, shortest length, threshold) are chosen as those of all segments are, and the
rule of `early_exit` on top of them. Legend: N tracks, C classes, E embedding (96).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.inference.calibration.out_of_fold import FoldScores, blocks, calibrate, on_one_scale
from mtl_core.inference.tagging.aggregation import Aggregation, Round
from mtl_core.inference.tagging.early_exit import RoundScores, TaskScores, choose_stops, follow
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.unknown import PROBABILITY, unknown_scores

MIN_TRACKS = 50  # that must have more segments than a round, or it gets no numbers of its own


def calibrate_rounds(
    folds: Sequence[FoldScores], aggregation: Aggregation, *, precision: float, unknown_share: float, seed: int
) -> tuple[Aggregation, dict[str, Any] | None]:
    """The aggregation with its rounds; other arguments as of `calibrate`, which made it from the same folds.

    Fold models without all tasks are left out.

    Returns:
        The aggregation, and what its rule does on the tracks that it was chosen on, as JSON values: `agreement`, the
        share of tracks whose tags are those of all segments; `mean_segments` and `mean_of_all`, the segments read with
        the rule and without; for `known` and `unknown` artists' tracks the share that stops in each round ("4", "8" …;
        "all": in none). None where there are no rounds, or no rule agrees often enough.
    """
    tasks = [task for task in TASKS if any(task in fold.heads for fold in folds)]
    folds = [fold.select(fold.segments_N > 0) for fold in folds if set(tasks) <= fold.heads.keys()]
    numbers: dict[int, Aggregation] = {}
    for segments in sorted({segments for fold in folds for segments in fold.rounds}):
        if sum(int((fold.read_N > segments).sum()) for fold in folds) < MIN_TRACKS:
            break
        after = [fold.after(segments) for fold in folds]
        numbers[segments] = calibrate(
            after, tasks, precision=precision, unknown_share=unknown_share, seed=seed, score=aggregation.score
        )
    if not numbers:
        return aggregation, None
    shifts = {task: _shifts(folds, task, aggregation) for task in tasks}
    final = _scores(folds, folds, aggregation, aggregation, shifts)
    rounds = [
        RoundScores(
            segments=segments,
            reached_N=np.concatenate(
                [(fold.read_N > segments) & (fold.after(segments).segments_N > 0) for fold in folds]
            ),
            tasks=_scores([fold.after(segments) for fold in folds], folds, of_round, aggregation, shifts),
        )
        for segments, of_round in numbers.items()
    ]
    stops = choose_stops(
        rounds,
        final,
        aggregation.threshold,
        known_N=np.concatenate([fold.known_N for fold in folds]),
        groups_N=np.array([name for fold in folds for name in _groups(fold)]),
        unknown_share=unknown_share,
        seed=seed,
        probabilities={task for task in tasks if aggregation.score[task] == PROBABILITY},
    )
    with_rounds = replace(
        aggregation,
        rounds=tuple(
            Round(segments=segments, numbers=of_round, stop=stops.get(segments, {}))
            for segments, of_round in numbers.items()
        ),
    )
    if not stops:
        return with_rounds, None
    agrees_N, round_N = follow(rounds, final, aggregation.threshold, stops)
    all_N = np.concatenate([fold.read_N for fold in folds])
    known_N = np.concatenate([fold.known_N for fold in folds])
    return with_rounds, {
        "agreement": float(agrees_N.mean()),
        "mean_segments": float(np.where(round_N > 0, round_N, all_N).mean()),
        "mean_of_all": float(all_N.mean()),
        **{
            name: {str(end or "all"): float((round_N[of_N] == end).mean()) for end in (*numbers, 0)}
            for name, of_N in (("known", known_N), ("unknown", ~known_N))
            if of_N.any()
        },
    }


def _groups(fold: FoldScores) -> Iterator[str]:
    """The artist of each track; one without a label is alone."""
    artists, track_ids = (fold.tracks[name].to_pylist() for name in ("artist", "track_id"))
    for artist, track_id in zip(artists, track_ids, strict=True):
        yield f"track {track_id}" if artist is None else f"artist {artist}"


def _scores(
    early: Sequence[FoldScores],
    whole: Sequence[FoldScores],
    numbers: Aggregation,
    final: Aggregation,
    shifts: Mapping[str, Sequence[float]],
) -> dict[str, TaskScores]:
    """task -> what the segments of `early` say, of the tracks of all folds, with these numbers.

    `shifts` are those of `_shifts`, by task.
    """
    scores = {}
    for task, shift_of_fold in shifts.items():
        parts = [_fold_scores(*pair, task, numbers, final) for pair in zip(early, whole, strict=True)]
        scores[task] = TaskScores(
            label_N=np.concatenate([part.label_N for part in parts]),
            odds_N=np.concatenate([part.odds_N for part in parts]),
            score_N=np.concatenate([part.score_N + shift for part, shift in zip(parts, shift_of_fold, strict=True)]),
            final_odds_N=np.concatenate([part.final_odds_N for part in parts]),
        )
    return scores


def _shifts(folds: Sequence[FoldScores], task: str, final: Aggregation) -> list[float]:
    """What `on_one_scale` adds to the scores of each fold's tracks with all their segments."""
    unscaled = [(fold.known_N, _final_scores(fold, task, final)) for fold in folds]
    return [
        float(after_N[0] - before_N[0]) if len(before_N) else 0.0
        for (_, before_N), after_N in zip(unscaled, on_one_scale(unscaled), strict=True)
    ]


def _final_scores(fold: FoldScores, task: str, final: Aggregation) -> np.ndarray:
    return np.concatenate(
        [np.zeros(0)]
        + [_unknown_scores(fold, rows, task, final) for rows in blocks(len(fold.tracks), fold.heads[task])]
    )


def _unknown_scores(fold: FoldScores, rows: slice, task: str, numbers: Aggregation) -> np.ndarray:
    head, embedding_NE = fold.heads[task], _finite(fold.embedding_NE[rows])
    return unknown_scores(
        numbers.score[task],
        head.all_logits(embedding_NE),
        numbers.temperature[task],
        head.lengths(embedding_NE),
        numbers.shortest[task],
    )


def _fold_scores(
    early: FoldScores, whole: FoldScores, task: str, numbers: Aggregation, final: Aggregation
) -> TaskScores:
    head = early.heads[task]
    label, odds, score, final_odds = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for rows in blocks(len(early.tracks), head):
        logits_NC = _logits(head, early.embedding_NE[rows], numbers.temperature[task])
        label.append(logits_NC.argmax(1))
        odds.append(_odds(logits_NC, label[-1]))
        score.append(_unknown_scores(early, rows, task, numbers))
        final_odds.append(_odds(_logits(head, whole.embedding_NE[rows], final.temperature[task]), label[-1]))
    return TaskScores(
        label_N=np.concatenate(label),
        odds_N=np.concatenate(odds),
        score_N=np.concatenate(score),
        final_odds_N=np.concatenate(final_odds),
    )


def _logits(head: Head, embedding_NE: np.ndarray, temperature: float) -> np.ndarray:
    return head.all_logits(_finite(embedding_NE)).astype(np.float64) / temperature


def _odds(logits_NC: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """(N,) the logarithm of the odds of a class against the best other one; the only class has 50."""
    rows_N = np.arange(len(logits_NC))
    if logits_NC.shape[1] < 2:
        return np.full(len(logits_NC), 50.0)
    own_N = logits_NC[rows_N, label_N]
    others_NC = logits_NC.copy()
    others_NC[rows_N, label_N] = -np.inf
    return own_N - others_NC.max(1)


def _finite(embedding_NE: np.ndarray) -> np.ndarray:
    """Zeros where no segment so far has sound; such a track is not decided."""
    return np.nan_to_num(embedding_NE)
