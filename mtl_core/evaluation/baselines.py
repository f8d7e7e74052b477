"""Baselines: what can be scored without a model of the task: chance, the class prior, the language of the artist.

Legend: N samples (tracks or segments), C classes, A artists, L languages.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scipy.special import digamma

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.ranking import ap_and_auroc

#: score -> its key in `chance`
CHANCE_KEYS = {
    "auc_pr_macro": "auc_pr_macro",
    "auc_roc_macro": "auc_roc",
    "auc_pr_micro": "auc_pr_micro",
    "auc_roc_micro": "auc_roc",
    "top_1": "top_1",
    "top_5": "top_5",
}


def chance(targets_N: np.ndarray, n_classes: int) -> dict[str, float | None]:
    """The scores of a model without skill on these targets, none of them `MISSING`. None: not defined.

    Returns:
        top_1, top_5: of uniform guesses. majority: top-1 of always predicting the most frequent class. auc_roc: 1/2.
        prevalence: the mean share of positives, which is the AUC-PR of a constant score such as the class prior.
        auc_pr_macro, auc_pr_micro: of a random order. They are above the prevalence where positives are few.
    """
    n = len(targets_N)
    support_C = np.bincount(targets_N, minlength=n_classes)
    support_C = support_C[support_C > 0]
    return {
        "top_1": 1 / n_classes,
        "top_5": min(5, n_classes) / n_classes,
        "majority": float(support_C.max() / n) if n else None,
        "auc_roc": 0.5,
        "prevalence": float((support_C / n).mean()) if n else None,
        "auc_pr_macro": float(random_order_ap(support_C, n).mean()) if n else None,
        "auc_pr_micro": float(random_order_ap(np.array([n]), n * len(support_C))[0]) if n else None,
    }


def random_order_ap(support_C: np.ndarray, n: int) -> np.ndarray:
    """(C,) the expected average precision of a random order of n samples, `support_C` of them positive (>= 1 each).

    Derivation: position k is positive with probability P/n. Given that, 1 + (k - 1)(P - 1)/(n - 1) of the first k are
    expected to be positive.
    """
    harmonic = float(digamma(n + 1)) + np.euler_gamma  # the sum of 1 / k up to n, without n numbers
    return (harmonic + (support_C - 1) * (n - harmonic) / max(n - 1, 1)) / max(n, 1)


def class_prior(targets_N: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) the share of each class among training targets; uniform if no target has a label."""
    targets_N = np.asarray(targets_N)
    support_C = np.bincount(targets_N[targets_N != MISSING], minlength=n_classes)
    return support_C / support_C.sum() if support_C.sum() else np.full(n_classes, 1 / n_classes)


def constant_scores(prior_C: np.ndarray, targets_N: np.ndarray) -> dict[str, float | None]:
    """The `CHANCE_KEYS` scores of predicting the same probabilities for every sample, from the classes' counts alone.

    Args:
        prior_C: (C,) the probabilities.
        targets_N: (N,) class indices; samples with `MISSING` are left out.
    """
    support_C = np.bincount(targets_N[targets_N != MISSING], minlength=len(prior_C))
    n, covered_D = support_C.sum(), np.flatnonzero(support_C)
    if not n:
        return dict.fromkeys(CHANCE_KEYS)
    # All samples of a class are tied, so its positives and its negatives can each be one sample with a weight.
    counts_2D = np.stack([support_C[covered_D], n - support_C[covered_D]]).astype(np.float64)
    positive_2D = np.repeat([True, False], len(covered_D))
    micro = ap_and_auroc(np.tile(prior_C[covered_D], 2), positive_2D, counts_2D.reshape(1, -1))
    rank_C = np.argsort(np.argsort(-prior_C, kind="stable"))
    return {
        "auc_pr_macro": float((support_C[covered_D] / n).mean()),
        "auc_roc_macro": 0.5 if (support_C[covered_D] < n).any() else None,
        "auc_pr_micro": float(micro[0][0]),
        "auc_roc_micro": float(micro[1][0]) if len(covered_D) > 1 else None,
        "top_1": float(support_C[rank_C < 1].sum() / n),
        "top_5": float(support_C[rank_C < 5].sum() / n),
    }


def language_probabilities(artist_NA: np.ndarray, language_A: np.ndarray, n_languages: int) -> np.ndarray:
    """P(language), (N, L), as the sum of P(artist) over the artists of the language.

    Args:
        artist_NA: (N, A) probabilities of the artists.
        language_A: (A,) index of each artist's language, or `MISSING`. Artists without a language are left out and the
            others are rescaled.
        n_languages: L. A row in which no artist has a language is uniform.
    """
    member_AL = np.asarray(language_A)[:, None] == np.arange(n_languages)
    p_NL = np.asarray(artist_NA, np.float64) @ member_AL
    total_N1 = p_NL.sum(1, keepdims=True)
    return np.where(total_N1 > 0, p_NL / np.where(total_N1 > 0, total_N1, 1), 1 / n_languages)


def artist_languages(tables: Sequence[pa.Table]) -> dict[str, str]:
    """artist -> the most frequent language of its tracks; of equally frequent ones the first in alphabetical order."""
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    for tracks in tables:
        pairs.update(zip(tracks["artist"].to_pylist(), tracks["language"].to_pylist(), strict=True))
    ranked = sorted((-n, language, artist) for (artist, language), n in pairs.items() if artist and language)
    return {artist: language for _, language, artist in reversed(ranked)}
