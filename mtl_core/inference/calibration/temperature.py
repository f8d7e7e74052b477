"""Calibration: the temperature that makes a track's confidence the probability of being right.

Legend: C classes, N tracks.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from mtl_core.dataset.vocabulary import MISSING

TEMPERATURE_RANGE = (0.05, 20.0)


def fit_temperature(logits_NC: np.ndarray, targets_N: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood of the targets, for `softmax.probabilities`.

    Only the confidence changes, never the order of the classes. A few validation tracks that are all right would drive
    the temperature to 0 and every confidence to 1. So, as in Platt scaling, the target counts with weight
    (N + 1) / (N + 2) and everything else with 1 / (N + 2), a share that vanishes as N grows.

    Args:
        logits_NC: (N, C), of the tracks.
        targets_N: (N,) class indices; tracks with `MISSING` are left out.

    Returns:
        A deterministic value within `TEMPERATURE_RANGE`; 1.0 where no track is labelled or there is only one class.

    Raises:
        ValueError: the numbers of tracks and targets differ.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; Platt 1999, "Probabilistic Outputs for SVMs".
    """
    if len(logits_NC) != len(targets_N):
        raise ValueError(f"{len(logits_NC)} tracks need as many targets, got {len(targets_N)}")
    labelled_N = targets_N[targets_N != MISSING]
    if not len(labelled_N) or logits_NC.shape[1] < 2:
        return 1.0
    pooled_NC = logits_NC[targets_N != MISSING].astype(np.float64)
    other_share = 1 / (len(labelled_N) + 2)

    def loss(log_temperature: float) -> float:
        p_NC = softmax(pooled_NC / float(np.exp(log_temperature)), axis=1)
        p_N = np.clip(p_NC[np.arange(len(labelled_N)), labelled_N], 1e-12, 1 - 1e-12)
        return float(-((1 - other_share) * np.log(p_N) + other_share * np.log1p(-p_N)).mean())

    low, high = np.log(TEMPERATURE_RANGE)
    grid = np.linspace(low, high, 25)  # the smoothed likelihood can have several minima
    best = int(np.argmin([loss(x) for x in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))
