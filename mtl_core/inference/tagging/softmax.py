"""Softmax: logits -> probabilities, in the one arithmetic that calibration, evaluation and tagging share.

Legend: N tracks, C classes.
"""

import numpy as np


def softmax_terms(logits_C: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities (…, C) as multiples of the largest, in the type of the logits, and their sum (…, 1) in float64.

    Raises:
        ValueError: there is no class, a logit is not finite, or the temperature is not above 0 and finite.
    """
    check_positive(temperature, "temperature")
    logits_C = np.asarray(logits_C)
    if logits_C.ndim < 1 or 0 in logits_C.shape[-1:]:
        raise ValueError(f"logits must be (…, classes >= 1), got shape {logits_C.shape}")
    if not np.isfinite(logits_C).all():
        raise ValueError("logits must be finite")
    exponents_C = logits_C - logits_C.max(-1, keepdims=True)
    exponents_C /= logits_C.dtype.type(temperature)
    terms_C = np.exp(exponents_C, out=exponents_C)
    return terms_C, terms_C.sum(-1, keepdims=True, dtype=np.float64)


def probabilities(logits_C: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The probabilities (…, C) of logits (…, C): their softmax at the temperature.

    The logits of a track are those of its mean embedding. Then this is the geometric mean of its segments'
    probabilities, renormalised.

    Raises:
        ValueError: as `softmax_terms`.
    """
    terms_C, sum_1 = softmax_terms(logits_C, temperature)
    return terms_C / sum_1


def check_positive(value: float, name: str) -> None:
    """Raise ValueError unless the value is above 0 and finite."""
    if not (0 < value < np.inf):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
