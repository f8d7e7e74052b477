"""Metrics: how good probabilities are, how sure that is, and what no skill at all would score.

Everything is one-vs-rest on arrays: probabilities (N, C), targets (N,) of class indices, `MISSING` ones left out. A
class counts in a mean where it has a positive (and, for ROC, a negative). What is resampled is a song, with all its
segments.
Legend: N samples (segments or tracks), C classes, G songs, R resamples, K distinct scores.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.ranking import ap_and_auroc, ap_and_auroc_per_class, nan_class_mean, top_k_hits

RESAMPLES = 1000
BINS = 10
HEADLINES = ("auc_pr_macro", "auc_roc_macro", "top_1", "top_5")
_CHUNK_VALUES = 4_000_000  # of weights held at once


def scores(
    probabilities_NC: np.ndarray,
    targets_N: np.ndarray,
    songs_N: Sequence[str] | np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of one task at one level, as JSON values; None for what has no value.

    Args:
        probabilities_NC: (N, C), rows sum to 1.
        targets_N: (N,) class indices, or `MISSING`.
        songs_N: (N,) the song (track) of each sample, the unit of the bootstrap; None: every sample is one.
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        n, n_songs, classes, classes_covered (those with a positive); auc_pr and auc_roc, _macro and _micro; top_1 and
        top_5 (shares, 0 to 1); nll (nats) and ece of the first class; `ci`: headline -> 95% interval [low, high];
        `chance`, see there; `per_class`: support, auc_pr, auc_pr_chance, auc_roc, recall, in the order of classes;
        `reliability`, see there.

    Raises:
        ValueError: the shapes do not fit, or a target is no class.
    """
    targets_N = np.asarray(targets_N)
    known = _labelled(probabilities_NC, targets_N)
    p, t = np.asarray(probabilities_NC, np.float64)[known], targets_N[known]
    songs = np.arange(len(targets_N)) if songs_N is None else np.asarray(songs_N)
    songs = songs[known]
    result: dict[str, Any] = {"n": len(t), "n_songs": len(np.unique(songs)), "classes": p.shape[1]}
    ap_C, roc_C = (x[:, 0] for x in ap_and_auroc_per_class(p, t, np.ones((1, len(t)))))
    hits_KN = top_k_hits(p, t)
    covered = np.flatnonzero(np.isin(np.arange(p.shape[1]), t))
    micro = ap_and_auroc(p[:, covered].ravel(), (t[:, None] == covered).ravel(), np.ones((1, len(t) * len(covered))))
    values = {
        "auc_pr_macro": _mean(ap_C),
        "auc_roc_macro": _mean(roc_C),
        "auc_pr_micro": micro[0][0],
        "auc_roc_micro": micro[1][0],
        "top_1": _mean(hits_KN[0]),
        "top_5": _mean(hits_KN[1]),
        "nll": _mean(-np.log(np.maximum(p[np.arange(len(t)), t], 1e-12))),
        "ece": calibration_error(p, t),
    }
    result |= {"classes_covered": len(covered), **{name: _to_json(value) for name, value in values.items()}}
    draws = bootstrap([p], t, songs, resamples=resamples, seed=seed)[0]
    ends = {name: confidence_interval(values_R, result[name]) for name, values_R in draws.items()}
    result["ci"] = {name: None if ci is None else [max(0.0, ci[0]), min(1.0, ci[1])] for name, ci in ends.items()}
    result["chance"] = chance(t, p.shape[1])
    support_C = np.bincount(t, minlength=p.shape[1])
    recall_C = [_to_json(_mean(hits_KN[0][t == c])) for c in range(p.shape[1])]
    result["per_class"] = {
        "support": support_C.tolist(),
        "auc_pr_chance": np.where(support_C > 0, _expected_random_ap(support_C, len(t)), 0).tolist(),
        "auc_pr": [_to_json(x) for x in ap_C],
        "auc_roc": [_to_json(x) for x in roc_C],
        "recall": recall_C,
    }
    result["reliability"] = reliability(p, t)
    return result


def bootstrap(
    models_NC: Sequence[np.ndarray],
    targets_N: np.ndarray,
    songs_N: Sequence[str] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """`HEADLINES` of each model on songs drawn with replacement: the same draws for all, so differences are paired.

    Args:
        models_NC: (N, C) probabilities of each model, on the same samples.
        targets_N: (N,) class indices, or `MISSING`.
        songs_N: (N,) what is drawn.
        resamples: R, 0 or more.
        seed: of the draws.

    Returns:
        headline -> (R,) for each model; macro over the classes that the resample holds; nan where it holds none.

    Source: Efron and Tibshirani 1993, chapters 8 (units) and 13 (percentile intervals).
    """
    known = _labelled(models_NC[0], targets_N)
    t, songs = np.asarray(targets_N)[known], np.asarray(songs_N)[known]
    drawn = draw_songs(songs, resamples=resamples, seed=seed)
    return [score_resamples(np.asarray(p, np.float64)[known], t, songs, drawn) for p in models_NC]


def draw_songs(songs: Sequence[str] | np.ndarray, *, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Songs drawn with replacement, as many as there are: their names (G,), sorted, and how often each is drawn (R, G).

    Args:
        songs: names, any number of times each.
        resamples: R, 0 or more.
        seed: of the draws.
    """
    names_G = np.unique(np.asarray(songs))
    if resamples < 1 or not len(names_G):
        return names_G, np.empty((0, len(names_G)), np.int64)
    rng = np.random.default_rng(seed)
    return names_G, rng.multinomial(len(names_G), np.full(len(names_G), 1 / len(names_G)), size=resamples)


def score_resamples(
    p_NC: np.ndarray, t_N: np.ndarray, songs_N: np.ndarray, drawn: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """headline -> (R,) of one model on the songs drawn.

    Args:
        p_NC, t_N: probabilities and targets, none `MISSING`.
        songs_N: of the samples; they may be some of those drawn from.
        drawn: of `draws`.
    """
    names_G, counts_RG = drawn
    if not len(counts_RG) or not len(t_N):
        return {name: np.empty(0) for name in HEADLINES}
    song_N, resamples = np.searchsorted(names_G, songs_N), len(counts_RG)
    hits_KN = top_k_hits(p_NC, t_N)
    parts = []
    for some_RG in np.array_split(counts_RG, max(1, min(resamples, -(-resamples * len(t_N) // _CHUNK_VALUES)))):
        w_RN = some_RG[:, song_N].astype(np.float64)
        of_classes = [nan_class_mean(x) for x in ap_and_auroc_per_class(p_NC, t_N, w_RN)]
        with np.errstate(invalid="ignore"):  # none of these songs was drawn
            parts.append(np.stack([*of_classes, *(hits_KN @ w_RN.T / w_RN.sum(1))]))
    return dict(zip(HEADLINES, np.concatenate(parts, 1), strict=True))


def confidence_interval(values_R: np.ndarray, value: float | None) -> list[float] | None:
    """The middle 95% of bootstrap values about the value itself; None where there are none.

    The values are shifted so that their mean is `value`. A resample holds a class's few songs twice or not at all, and
    a doubled positive is more easily ranked first: unshifted, the interval of AUC-PR lies too high, at a song or two a
    class often wholly above its value. (Simulated with 34 or 68 songs and 17 or 34 classes it covered the truth in 53%
    to 88%, shifted in 81% to 93%.) Where every resample scores the same it has no width, however few the songs.
    """
    finite = values_R[np.isfinite(values_R)]
    if value is None or not len(finite):
        return None
    return [float(x) for x in np.percentile(finite, (2.5, 97.5)) - finite.mean() + value]


def chance(targets_N: np.ndarray, n_classes: int) -> dict[str, float | None]:
    """What no skill scores on these targets (none `MISSING`).

    Returns:
        top_1, top_5: uniform guesses. majority: always naming the most frequent class. auc_roc: 1/2. prevalence: mean
        share of positives, which is the AUC-PR of a constant score such as the class prior. auc_pr_macro and _micro:
        those of a random order, which are more where positives are few.
    """
    n = len(targets_N)
    support_C = np.bincount(targets_N, minlength=n_classes)
    present = support_C[support_C > 0]
    return {
        "top_1": 1 / n_classes,
        "top_5": min(5, n_classes) / n_classes,
        "majority": _to_json(present.max() / n if n else np.nan),
        "auc_roc": 0.5,
        "prevalence": _to_json(_mean(present / max(n, 1))),
        "auc_pr_macro": _to_json(_mean(_expected_random_ap(present, n))),
        "auc_pr_micro": _to_json(_mean(_expected_random_ap(np.array([n]), n * len(present)))) if n else None,
    }


def _expected_random_ap(support_C: np.ndarray, n: int) -> np.ndarray:
    """(C,) the average precision to be expected of a random order of n samples with that many positives, >= 1 each.

    Place k holds a positive with chance P/n, and then 1 + (k - 1)(P - 1)/(n - 1) of the first k are expected to be.
    """
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    return (harmonic + (support_C - 1) * (n - harmonic) / max(n - 1, 1)) / max(n, 1)


def reliability(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> list[dict[str, float]]:
    """Confidence of the first class against how often it is right, in `BINS` equal bins that hold something."""
    confidence_N = probabilities_NC.max(1, initial=0.0)
    right_N = top_k_hits(probabilities_NC, targets_N)[0]
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int((bin_N == b).sum()),
            "confidence": float(confidence_N[bin_N == b].mean()),
            "accuracy": float(right_N[bin_N == b].mean()),
        }
        for b in np.unique(bin_N)
    ]


def calibration_error(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> float:
    """Expected calibration error, 0 to 1; nan of nothing. Source: Guo et al. 2017."""
    bins = reliability(probabilities_NC, targets_N)
    gaps = [b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins]
    return sum(gaps) / len(targets_N) if bins else np.nan


def class_prior(targets_N: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) how frequent each class is among training targets; uniform where nothing is labelled."""
    targets_N = np.asarray(targets_N)
    support_C = np.bincount(targets_N[targets_N != MISSING], minlength=n_classes)
    return support_C / support_C.sum() if support_C.sum() else np.full(n_classes, 1 / n_classes)


def language_of_artists(artist_NA: np.ndarray, language_A: np.ndarray, n_languages: int) -> np.ndarray:
    """P(language) (N, languages) as the sum of P(artist) (N, A) over the language's artists.

    Args:
        artist_NA: probabilities of the artists.
        language_A: index of each artist's language, or `MISSING`: that artist's share is left out of the whole.
        n_languages: columns of the result; a row in which no artist has a language is uniform.
    """
    member_AL = np.asarray(language_A)[:, None] == np.arange(n_languages)
    p_NL = np.asarray(artist_NA, np.float64) @ member_AL
    total_N1 = p_NL.sum(1, keepdims=True)
    return np.where(total_N1 > 0, p_NL / np.where(total_N1 > 0, total_N1, 1), 1 / n_languages)


def _labelled(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """Which of the N samples have a target; the door check of all of the above."""
    targets_N, shape = np.asarray(targets_N), np.shape(probabilities_NC)
    if len(shape) != 2 or targets_N.shape != shape[:1] or shape[1] < 1:
        raise ValueError(f"probabilities (N, C) and targets (N,) do not fit: {shape} and {targets_N.shape}")
    if len(targets_N) and not (targets_N.min() >= MISSING and targets_N.max() < shape[1]):
        raise ValueError(
            f"targets must be {MISSING} (missing) to {shape[1] - 1}, got {targets_N.min()} to {targets_N.max()}"
        )
    return targets_N != MISSING


def _mean(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else np.nan


def _to_json(x: float) -> float | None:
    """A JSON value: None for nan."""
    return float(x) if np.isfinite(x) else None
