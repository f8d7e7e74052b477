"""Linear baseline: ten lines of scikit-learn that every recipe is compared with.

The mean, the standard deviation and the mean step over time of each mel band, standardised, go into a linear
discriminant analysis with Ledoit-Wolf shrinkage. A track's log-probabilities are the mean of its segments'.

Legend: S segments, T frames, F mel bands, N tracks, C classes, V = 3 F values of a segment.
"""

from collections.abc import Sequence

import numpy as np

from mtl_core.dataset.vocabulary import MISSING

FIT_SEGMENTS = 200_000  # that are fitted at most, drawn at random: 0.5 GB


def band_statistics(mel_STF: np.ndarray) -> np.ndarray:
    """(S, V) float32 of segments (S, T, F): mean, standard deviation and mean absolute step of each band.

    The level of a segment, its mean over frames and bands, is taken off first.
    """
    x_STF = mel_STF.astype(np.float32)
    x_STF -= x_STF.mean((1, 2), keepdims=True)
    step_SF = np.abs(np.diff(x_STF, axis=1)).mean(1)
    return np.concatenate((x_STF.mean(1), x_STF.std(1), step_SF), axis=1)


def linear_log_probabilities(
    train_SV: np.ndarray,
    targets_S: np.ndarray,
    test_SV: Sequence[np.ndarray],
    n_classes: int,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Fit the baseline on segments, and score tracks: (N, C) log-probabilities.

    Args:
        train_SV: values of the training segments.
        targets_S: their classes; `MISSING` is left out. Two classes or more occur.
        test_SV: of each track to score, the values of its segments, one or more.
        n_classes: C. A class that no training segment has gets no probability.
        seed: of the choice of `FIT_SEGMENTS`.
    """
    # scikit-learn takes a second to import, and tagging does without it.
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = np.flatnonzero(targets_S != MISSING)
    if len(fitted) > FIT_SEGMENTS:
        fitted = np.random.default_rng(seed).choice(fitted, FIT_SEGMENTS, replace=False)
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    model.fit(train_SV[fitted], targets_S[fitted])
    ends = np.cumsum([len(x_SV) for x_SV in test_SV])
    log_p_SK = np.maximum(model.predict_log_proba(np.concatenate(test_SV)), -700)
    log_p_NC = np.full((len(test_SV), n_classes), -np.inf)
    starts = [0, *ends[:-1]]
    log_p_NC[:, model.classes_] = np.stack(
        [log_p_SK[start:end].mean(0) for start, end in zip(starts, ends, strict=True)]
    )
    return log_p_NC
