"""Comparison: two models on the same tracks, in pairs, and whether the new one is worse.

Both are scored on the same resamples of songs, so that what is hard for both does not count. A class that a model does
not know has probability 0 for it.

Legend: N tracks, C classes, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_core.evaluation.bootstrap import confidence_interval, draw_songs, score_resamples, weights
from mtl_core.evaluation.predictions import TaskPrediction

GATE = "auc_pr_macro"  # the score that decides
SCORES = (GATE, "top_1")
MAX_TRACKS = 2_000  # that are compared, drawn at random where there are more: N x C values are ranked R times


def compare(
    new: Sequence[TaskPrediction], old: Sequence[TaskPrediction], songs_N: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Compare two models in a task.

    AUC-PR is that of the top lists: all other labels of a track have probability 0.

    Args:
        new, old: what the models say of the same N tracks, all of which have a label.
        songs_N: the song of each track, the unit of the resamples.

    Returns:
        JSON values: for `auc_pr_macro`, `top_1`, `precision` (of the names) and `coverage` (tracks with a name) the
        values `new` and `old`, their `difference` and its 95 % interval `ci` (None: not defined); `n` tracks; and
        `changed`, the number of tags that change, by what they were and are.
    """
    truth = [str(of.true) for of in new]
    labels = sorted(set(truth))
    target_N = np.searchsorted(np.array(labels), np.array(truth))
    draws = draw_songs(songs_N, resamples=resamples, seed=seed)
    ones = np.ones((1, len(truth)))
    all_draws = [ones, *weights(songs_N, draws)]
    whole_songs = (draws[0], np.ones((1, len(draws[0])), np.uint16))
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, of in (("new", new), ("old", old)):
        p_NC = _probabilities(of, labels)
        exact, drawn = (score_resamples(p_NC, target_N, songs_N, which) for which in (whole_songs, draws))
        values[name] = {score: np.concatenate([exact[score], drawn[score]]) for score in SCORES}
        named_N = np.array([tag is not None for tag in _tags(of)])
        right_N = np.array([tag == label for tag, label in zip(_tags(of), truth, strict=True)])
        with np.errstate(invalid="ignore", divide="ignore"):
            named = [(w_RN @ named_N, w_RN @ right_N, w_RN.sum(1)) for w_RN in all_draws]
            values[name]["precision"] = np.concatenate([right / count for count, right, _ in named])
            values[name]["coverage"] = np.concatenate([count / total for count, _, total in named])
    scores = {}
    for score in (*SCORES, "precision", "coverage"):
        new_R, old_R = values["new"][score], values["old"][score]
        difference = _number(new_R[0] - old_R[0])
        scores[score] = {
            "new": _number(new_R[0]),
            "old": _number(old_R[0]),
            "difference": difference,
            "ci": confidence_interval(new_R[1:] - old_R[1:], difference),
        }
    return {"n": len(truth), "scores": scores, "changed": count_changes(_tags(old), _tags(new))}


def count_changes(old: Sequence[str | None], new: Sequence[str | None]) -> dict[str, int]:
    """How many tags change, and how."""
    pairs = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    return {
        "same": len(old) - len(pairs),
        "another_name": sum(before is not None and after is not None for before, after in pairs),
        "named_now": sum(before is None for before, _ in pairs),
        "null_now": sum(after is None for _, after in pairs),
    }


def is_worse(comparison: Mapping[str, Any], margin: float) -> bool:
    """Whether the new model's AUC-PR is certainly lower by more than the margin: its whole interval is below it."""
    ci = comparison["scores"][GATE]["ci"]
    return ci is not None and ci[1] < -margin


def _tags(of: Sequence[TaskPrediction]) -> list[str | None]:
    return [None if one.unknown else one.predicted for one in of]


def _probabilities(of: Sequence[TaskPrediction], labels: Sequence[str]) -> np.ndarray:
    """(N, C) of the classes that tracks have; 0 where a label is not in the top list."""
    column = {label: i for i, label in enumerate(labels)}
    p_NC = np.zeros((len(of), len(labels)))
    for row, one in enumerate(of):
        for label, p in one.top:
            if label in column:
                p_NC[row, column[label]] = p
    return p_NC


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
