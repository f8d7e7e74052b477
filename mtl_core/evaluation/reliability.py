"""Reliability: whether the confidence of predictions is the probability that they are right.

Samples go to bins of equal count, by the confidence of the predicted class. The squared calibration error is the mean
over the samples of (mean confidence - accuracy)^2 of their bin. Chance alone makes it larger than 0, so the variance of
the accuracy is subtracted. Then it is 0 on average for a calibrated model, whatever the number of samples, and it can
be below 0. The variance is that of independent samples; the segments of a track are not.

Legend: N samples, B bins, R resamples.
Sources: Kumar, Liang, Ma 2019, "Verified Uncertainty Calibration", section 4 (the estimator); Broecker 2012,
"Estimating reliability and resolution of probability forecasts through decomposition of the empirical score".
"""

import numpy as np

from mtl_core.evaluation.bootstrap import Draws, confidence_interval, weights

BINS = 15


def assign_bins(confidence_N: np.ndarray) -> np.ndarray:
    """(N,) the bin of each sample, from 0: `BINS` bins of equal count, fewer where a bin would have one sample.

    Samples of equal confidence are in one bin. So bins can be empty.
    """
    n = len(confidence_N)
    n_bins = max(1, min(BINS, n // 2))
    ordered_N = np.sort(confidence_N)
    first_N = np.searchsorted(ordered_N, confidence_N, "left")
    return first_N * n_bins // max(n, 1)


def reliability(confidence_N: np.ndarray, right_N: np.ndarray) -> list[dict[str, float]]:
    """The bins that have samples: lowest and highest confidence (`low`, `high`), `count`, mean `confidence`, and
    `accuracy`, the share of `right_N` (1 or 0).
    """
    bin_N = assign_bins(confidence_N)
    return [
        {
            "low": float(confidence_N[bin_N == b].min()),
            "high": float(confidence_N[bin_N == b].max()),
            "count": int((bin_N == b).sum()),
            "confidence": float(confidence_N[bin_N == b].mean()),
            "accuracy": float(right_N[bin_N == b].mean()),
        }
        for b in np.unique(bin_N)
    ]


def squared_error(confidence_N: np.ndarray, right_N: np.ndarray, w_RN: np.ndarray | None = None) -> np.ndarray:
    """(R,) the debiased squared calibration error, below 1; nan where no bin has two samples.

    Args:
        confidence_N: confidence of the predicted class, 0 to 1.
        right_N: 1 or 0, whether the predicted class is right.
        w_RN: (R, N) how often each sample counts. The bins are always those of the samples themselves.
    """
    w_RN = np.ones((1, len(confidence_N))) if w_RN is None else w_RN
    member_NB = (assign_bins(confidence_N)[:, None] == np.arange(BINS)).astype(np.float64)
    n_RB, confidence_RB, right_RB = (
        w_RN @ (x_N[:, None] * member_NB) for x_N in (np.ones(len(right_N)), confidence_N, right_N)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy_RB = right_RB / n_RB
        chance_RB = accuracy_RB * (1 - accuracy_RB) / (n_RB - 1)
        error_RB = (confidence_RB / n_RB - accuracy_RB) ** 2 - chance_RB
        counted_RB = np.where(n_RB > 1, n_RB, 0)
        return np.where(n_RB > 1, error_RB * n_RB, 0).sum(1) / counted_RB.sum(1)


def calibration_error(
    confidence_N: np.ndarray, right_N: np.ndarray, songs_N: np.ndarray, draws: Draws
) -> tuple[float | None, float | None, list[float] | None]:
    """The expected calibration error, its debiased square, and the 95% interval of the error over songs.

    The error is the root of the square, 0 where the square is below 0; None where no bin has two samples.

    Args:
        confidence_N, right_N: as of `squared_error`.
        songs_N: (N,) the song of each sample.
        draws: result of `bootstrap.draw_songs`.
    """
    square = float(squared_error(confidence_N, right_N)[0])
    if not np.isfinite(square):
        return None, None, None
    resampled = [squared_error(confidence_N, right_N, w_RN) for w_RN in weights(songs_N, draws)]
    ci = confidence_interval(np.concatenate([np.empty(0), *resampled]), square)
    return _root(square), square, None if ci is None else [_root(x) for x in ci]


def _root(square: float) -> float:
    return float(np.sqrt(max(0.0, square)))
