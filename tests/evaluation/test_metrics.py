import json
import time

import numpy as np
import pytest
from builders.scores import skilled
from sklearn.metrics import average_precision_score, roc_auc_score

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation import class_scores, ranking
from mtl_core.evaluation.bootstrap import HEADLINES
from mtl_core.evaluation.class_scores import ArrayScores, HeadScores, head_scores
from mtl_core.evaluation.metrics import scores
from mtl_core.inference.tagging.heads import Head


@pytest.mark.parametrize("decimals", [1, 6])  # many ties, none
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_areas_are_those_of_scikit_learn(classes, decimals):
    p, t = skilled(90, classes, 1.0, decimals=decimals)
    one_hot = np.eye(classes)[t]
    s = scores(p, t, resamples=0)
    assert s["auc_pr_macro"] == pytest.approx(average_precision_score(one_hot, p, average="macro"))
    assert s["auc_pr_micro"] == pytest.approx(average_precision_score(one_hot, p, average="micro"))
    assert s["auc_roc_macro"] == pytest.approx(roc_auc_score(one_hot, p, average="macro"))
    assert s["auc_roc_micro"] == pytest.approx(roc_auc_score(one_hot, p, average="micro"))
    assert s["per_class"]["auc_pr"] == pytest.approx(list(average_precision_score(one_hot, p, average=None)))
    assert s["ci"]["top_1"] is None  # no resamples, no interval


def test_68_classes_by_blocks_score_as_their_array(monkeypatch):
    rng = np.random.default_rng(0)
    t = np.append(np.arange(340) % 60, [MISSING] * 4)  # 8 classes are not covered
    embedding_NE = rng.normal(size=(344, 96)).astype(np.float32)
    head = Head((rng.normal(size=(68, 96)) / 8).astype(np.float32), np.zeros(68, np.float32))
    embedding_NE[:340] += head.weight_CE[t[:340]] * 3
    expected = scores(head_scores(embedding_NE, head, 0.7), t, resamples=0)
    monkeypatch.setattr(class_scores, "BLOCK_VALUES", 2000)
    blocks = scores(HeadScores(embedding_NE, head, 0.7), t, resamples=0)
    for key in ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5"):
        assert blocks[key] == pytest.approx(expected[key], abs=1e-12)
    for key in ("nll", "ece"):
        assert blocks[key] == pytest.approx(expected[key], abs=1e-6)  # float32 of another multiplication
    for key in ("auc_pr", "auc_roc", "recall"):
        assert blocks["per_class"][key][:60] == pytest.approx(expected["per_class"][key][:60], abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 6])
def test_areas_by_rank_are_those_of_whole_rankings(decimals, monkeypatch):
    p, t = skilled(300, 68, 2.0, decimals=decimals)
    monkeypatch.setattr(class_scores, "BLOCK_VALUES", 1000)
    for few in (0, 32):  # by binary search, and by comparisons
        monkeypatch.setattr(ranking, "_FEW", few)
        ap_RD, auroc_RD = ranking.rank(ArrayScores(p), t).areas(np.ones((1, 300)))
        ap_C1, auroc_C1 = ranking.ap_and_auroc_per_class(p, t, np.ones((1, 300)))
        covered = np.unique(t)
        assert ap_RD[0] == pytest.approx(ap_C1[covered, 0], abs=1e-12)
        assert auroc_RD[0] == pytest.approx(auroc_C1[covered, 0], abs=1e-12)


def test_classes_without_a_positive_sample_are_left_out_of_means_and_counted():
    p, t = skilled(60, 3, 1.0)
    wide = np.hstack([p * 0.9, np.full((60, 4), 0.025)])
    s = scores(wide, t, resamples=20)
    assert (s["classes"], s["classes_covered"]) == (7, 3)
    assert s["auc_pr_macro"] == pytest.approx(scores(p, t, resamples=0)["auc_pr_macro"])
    assert s["auc_pr_micro"] == pytest.approx(scores(p, t, resamples=0)["auc_pr_micro"])
    assert s["per_class"]["auc_pr"][3:] == [None] * 4
    assert s["per_class"]["support"][3:] == [0] * 4


def test_samples_without_a_target_do_not_change_the_scores():
    p, t = skilled(50, 4, 1.0)
    songs = np.array([f"s{i // 2}" for i in range(50)])
    more = np.vstack([p, np.full((7, 4), 0.25)])
    with_missing = scores(more, np.append(t, [MISSING] * 7), np.append(songs, ["x"] * 7))
    assert with_missing == scores(p, t, songs)
    assert with_missing["n"] == 50
    assert with_missing["n_songs"] == 25


def test_perfect_and_reversed_probabilities():
    t = np.arange(12) % 4
    s = scores(np.eye(4)[t], t)
    assert {s[name] for name in (*HEADLINES, "auc_pr_micro", "auc_roc_micro")} == {1.0}
    assert s["ci"]["auc_pr_macro"] == [1.0, 1.0]
    assert (s["nll"], s["ece"]) == (0, 0)
    worst = scores((1 - np.eye(4)[t]) / 3, t, resamples=0)
    assert (worst["auc_roc_macro"], worst["top_1"]) == (0, 0)


def test_ties_do_not_count_as_hits_of_every_class():
    p = np.tile(np.linspace(0.2, 0.1, 8), (8, 1))
    s = scores(p, np.arange(8), resamples=0)
    assert (s["top_1"], s["top_5"]) == (1 / 8, 5 / 8)
    flat = scores(np.full((8, 8), 1 / 8), np.arange(8), resamples=0)
    assert (flat["top_1"], flat["top_5"]) == (1 / 8, 5 / 8)  # never all right by a tie


@pytest.mark.parametrize(("n", "classes"), [(0, 3), (1, 1), (1, 3), (5, 1)])
def test_scores_of_very_few_samples_are_json_without_nan(n, classes):
    s = scores(np.full((n, classes), 1 / classes), np.zeros(n, int))
    json.dumps(s, allow_nan=False)
    assert s["auc_pr_macro"] is None if n == 0 else s["top_5"] == 1
    assert s["auc_roc_macro"] is None
    assert s["ci"]["auc_roc_macro"] is None


def test_wrong_shapes_and_targets_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        scores(np.ones((3, 2)) / 2, np.zeros(4, int))
    with pytest.raises(ValueError, match=r"targets must be.*got 0 to 2"):
        scores(np.ones((3, 2)) / 2, np.arange(3))


def test_scores_of_1360_segments_and_68_classes_take_seconds():
    p, t = skilled(34 * 40, 68, 1.0)
    start = time.process_time()
    scores(p, t, np.repeat(np.arange(34), 40), resamples=200)
    assert time.process_time() - start < 10
