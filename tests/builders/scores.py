"""Probabilities of a model of known skill."""

import numpy as np


def skilled(n, classes, skill, seed=0, decimals=6):
    """Probabilities that favour the target by `skill`; with few decimals there are ties."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), targets] += skill
    p = np.exp(logits)
    return np.round(p / p.sum(1, keepdims=True), decimals), targets
