"""A model against itself is not worse; against one that knows less it is not; the other way round it is."""

import numpy as np
import pytest

from mtl_core.evaluation.comparison import compare, count_changes, is_worse
from mtl_core.evaluation.pages.comparison_page import comparison_page, verdict
from mtl_core.evaluation.predictions import TaskPrediction

CLASSES = 34


def model(rng: np.random.Generator, truth: np.ndarray, skill: float, threshold: float = 0.3) -> list[TaskPrediction]:
    """Predictions whose true class has a logit that is higher by `skill` on average."""
    logits_NC = rng.normal(size=(len(truth), CLASSES))
    logits_NC[np.arange(len(truth)), truth] += skill
    p_NC = np.exp(2 * logits_NC)
    p_NC /= p_NC.sum(1, keepdims=True)
    found = []
    for p_C, true in zip(p_NC, truth, strict=True):
        best = np.argsort(-p_C)[:5]
        found.append(
            TaskPrediction(
                true=f"c{true:02}", predicted=f"c{best[0]:02}", confidence=float(p_C[best[0]]),
                true_probability=float(p_C[true]), unknown=bool(p_C[best[0]] < threshold),
                top=[(f"c{i:02}", float(p_C[i])) for i in best],
            )
        )  # fmt: skip
    return found


def compared(new: list[TaskPrediction], old: list[TaskPrediction]) -> dict:
    songs_N = np.array([f"s{i:03}" for i in range(len(new))])
    return compare(new, old, songs_N, resamples=200, seed=0)


@pytest.fixture
def truth() -> np.ndarray:
    return np.arange(170) % CLASSES


def test_a_model_against_itself_differs_in_nothing(truth):
    of = model(np.random.default_rng(0), truth, 2.0)
    result = compared(of, of)
    for score in result["scores"].values():
        assert score["difference"] == 0 and score["ci"] == [0, 0]
    assert not is_worse(result, 0.0)
    assert result["changed"] == {"same": 170, "another_name": 0, "named_now": 0, "null_now": 0}


def test_a_worse_model_is_told_and_a_better_one_is_not(truth):
    rng = np.random.default_rng(1)
    good, bad = model(rng, truth, 2.5), model(rng, truth, 1.0)
    worse, better = compared(bad, good), compared(good, bad)
    assert is_worse(worse, 0.0) and not is_worse(better, 0.0)
    assert not is_worse(worse, 0.9), "within the margin"
    for name in ("auc_pr_macro", "top_1", "precision"):
        assert worse["scores"][name]["difference"] == pytest.approx(-better["scores"][name]["difference"])
    named = [of for of in good if not of.unknown]
    assert better["scores"]["coverage"]["new"] == pytest.approx(len(named) / 170)
    assert better["scores"]["precision"]["new"] == pytest.approx(np.mean([of.predicted == of.true for of in named]))
    assert better["scores"]["top_1"]["new"] == pytest.approx(np.mean([of.predicted == of.true for of in good]))


def test_shuffled_labels_fail(truth):
    rng = np.random.default_rng(2)
    good = model(rng, truth, 2.5)
    shuffled = model(rng, rng.permutation(truth), 2.5)
    shuffled = [TaskPrediction(**vars(of) | {"true": f"c{true:02}"}) for of, true in zip(shuffled, truth, strict=True)]
    assert is_worse(compared(shuffled, good), 0.0)


def test_equal_models_of_other_seeds_are_rarely_called_worse(truth):
    rng = np.random.default_rng(3)
    calls = [is_worse(compared(model(rng, truth, 2.0), model(rng, truth, 2.0)), 0.0) for _ in range(40)]
    assert sum(calls) <= 4  # 2.5 % are expected


def test_a_model_without_names_has_no_precision_and_a_page(truth):
    rng = np.random.default_rng(4)
    silent, good = model(rng, truth, 2.0, threshold=2.0), model(rng, truth, 2.0)
    result = compared(silent, good)
    assert result["scores"]["precision"]["new"] is None and result["scores"]["precision"]["difference"] is None
    assert result["scores"]["coverage"]["new"] == 0
    whole = {
        "new": {"model_id": "n", "model": "/new"}, "old": {"model_id": "o", "model": "/old"}, "on": "rows",
        "same_trunk": False, "margin": 0.01, "worse": False, "tasks": {"artist": result | {"worse": False}},
    }  # fmt: skip
    assert "not worse by more than 1.0%" in verdict(whole) and "not defined" in verdict(whole)
    assert "<td>not defined</td>" in comparison_page(whole)
    changed = {"same": 7, "another_name": 2, "named_now": 0, "null_now": 1}
    table = {"source": "audio", "n": 10, "left_out": 3, "tasks": {"artist": changed}}
    assert "artist: of 10 tags in the table 7 stay, 2 get another name" in verdict(whole | {"table": table})
    page = comparison_page(whole | {"table": table})
    assert (
        "10 tracks of the night's table, drawn at random, were tagged anew from their audio; 3 more could not" in page
    )
    assert "<tr><th>get another name</th><td>2</td></tr>" in page


def test_changes_are_counted_by_kind():
    old, new = ["a", "a", None, "b", None], ["a", "b", "c", None, None]
    assert count_changes(old, new) == {"same": 2, "another_name": 1, "named_now": 1, "null_now": 1}
