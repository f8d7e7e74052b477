"""What loss `evaluate --against` detects: python bench/gate_power.py [SONGS [CLASSES [CASES]]]

Simulates pairs of models on SONGS songs (default 340) of CLASSES classes (68). Their logits share four fifths of their
noise, and the new model's true classes have lower logits, by more from row to row. Prints in how many of CASES cases
(40) the new model is called worse, and its mean difference of AUC-PR. Takes three minutes.
"""

import sys

import numpy as np

from mtl_core.evaluation.comparison import compare, is_worse
from mtl_core.evaluation.predictions import TaskPrediction

SKILL, SHARED, OWN = 2.6, 0.8, 0.6  # of a logit: of the true class, and of the noise


def predictions(logits_NC: np.ndarray, truth: np.ndarray) -> list[TaskPrediction]:
    p_NC = np.exp(2 * logits_NC)
    p_NC /= p_NC.sum(1, keepdims=True)
    found = []
    for p_C, true in zip(p_NC, truth, strict=True):
        top = [(f"{i:03}", float(p_C[i])) for i in np.argsort(-p_C)[:5]]
        found.append(
            TaskPrediction(
                true=f"{true:03}",
                predicted=top[0][0],
                confidence=top[0][1],
                true_probability=float(p_C[true]),
                unknown=False,
                top=top,
            )
        )
    return found


def main(songs: int = 340, classes: int = 68, cases: int = 40) -> None:
    truth, names = np.arange(songs) % classes, np.array([f"{i:05}" for i in range(songs)])
    print("| logit lost | called worse | mean difference of AUC-PR | AUC-PR in use |\n| ---: | ---: | ---: | ---: |")
    for lost in (0.0, 0.15, 0.3, 0.45):
        rng, called, differences = np.random.default_rng(0), [], []
        for _ in range(cases):
            shared_NC = rng.normal(size=(songs, classes))
            pair = []
            for skill in (SKILL - lost, SKILL):
                logits_NC = SHARED * shared_NC + OWN * rng.normal(size=(songs, classes))
                logits_NC[np.arange(songs), truth] += skill
                pair.append(predictions(logits_NC, truth))
            result = compare(*pair, names, resamples=300, seed=0)
            called.append(is_worse(result, 0.0))
            score = result["scores"]["auc_pr_macro"]
            differences.append((score["difference"], score["old"]))
        difference, in_use = np.mean(differences, 0)
        print(f"| {lost:g} | {np.mean(called):.0%} | {difference:+.3f} | {in_use:.3f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
