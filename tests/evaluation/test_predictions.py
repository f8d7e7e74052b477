import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import ranking, report
from mtl_core.evaluation.predictions import (
    Predictions,
    predictions_table,
    score_predictions,
    segment_counts,
    track_predictions,
)
from mtl_core.inference.aggregation import Aggregation

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
TRACKS = pa.table(
    {
        "track_id": ["t1", "t2", "t3", "t4"],
        "artist": pa.array(["a", "b", "nobody", None], pa.string()),
        "language": pa.array(["de", "en", "en", "de"], pa.string()),
    }
)
TRAINING = pa.table(
    {
        "track_id": [f"r{i}" for i in range(5)],
        "artist": pa.array(["a", "a", "b", "c", None], pa.string()),
        "language": pa.array(["de", "en", "en", None, "de"], pa.string()),
    }
)


def predicted(**aggregation):
    """Predictions for TRACKS."""
    logits = {
        "artist": [np.array([[4.0, 0, 0], [4.0, 0, 0]]), np.array([[0, 0, 1.0]]), np.zeros((3, 3)), np.zeros((1, 3))],
        "language": [np.array([[2.0, 0], [2.0, 0]]), np.array([[0, 1.0]]), np.zeros((3, 2)), np.array([[3.0, 0]])],
    }
    vocabularies = {"artist": Vocabulary(("a", "b", "c")), "language": Vocabulary(("de", "en"))}
    return Predictions(tracks=TRACKS, logits=logits, vocabularies=vocabularies, aggregation=Aggregation(**aggregation))


def score(predictions, training=TRAINING, resamples=0):
    return score_predictions(predictions, training, resamples=resamples, seed=0)


def test_track_predictions_are_what_tagging_predicts():
    first, second, other_artist, unlabelled = track_predictions(predicted(threshold={"artist": 0.9}))
    assert (first.track_id, first.n_segments) == ("t1", 2)
    p = np.exp(4) / (np.exp(4) + 2)
    assert first.by_task["artist"].predicted == "a"
    assert first.by_task["artist"].confidence == pytest.approx(p)
    assert first.by_task["artist"].true_probability == pytest.approx(p)
    assert (first.by_task["artist"].unknown, second.by_task["artist"].unknown) == (False, True)
    assert (second.by_task["artist"].true, second.by_task["artist"].predicted) == ("b", "c")
    assert (other_artist.by_task["artist"].true, other_artist.by_task["artist"].true_probability) == ("nobody", None)
    assert (unlabelled.by_task["artist"].true, unlabelled.by_task["artist"].true_probability) == (None, None)


def test_scores_leave_out_labels_that_are_not_classes_and_count_segments():
    scores = score(predicted(), resamples=10)
    artist, language = scores["artist"], scores["language"]
    assert (artist["tracks"]["n"], artist["segments"]["n"], artist["segments"]["n_songs"]) == (2, 3, 2)
    assert (language["tracks"]["n"], language["segments"]["n"]) == (4, 7)
    assert artist["tracks"]["top_1"] == 0.5
    assert artist["segments"]["top_1"] == pytest.approx(2 / 3)
    json.dumps(scores, allow_nan=False)


def test_the_temperature_changes_the_probabilities_of_tracks_and_segments_but_not_their_order():
    cold, hot = (score(predicted(temperature={"language": t}))["language"] for t in (1.0, 5.0))
    for level in ("tracks", "segments"):
        assert hot[level]["nll"] != cold[level]["nll"]
        assert hot[level]["auc_pr_macro"] == cold[level]["auc_pr_macro"]


def test_the_baselines_are_the_class_prior_and_the_language_of_the_artist():
    baselines = score(predicted())["language"]["baselines"]
    assert set(baselines) == {"class prior", "via artist"}
    assert baselines["class prior"]["top_1"] == 0.5
    # Artist a is de, b is en, c has no language. So t1 is de and the others are tied, which counts as de.
    assert baselines["via artist"]["top_1"] == 0.5
    assert baselines["via artist"]["auc_roc_macro"] == pytest.approx(0.75)
    assert score(predicted(), TRAINING.slice(0, 0))["artist"]["baselines"] == {}


def test_artists_are_ordered_by_language():
    tracks = pa.table({"track_id": ["1", "2", "3"], "artist": ["c", "b", "a"], "language": ["de", "en", "en"]})
    scores = score(predicted(), tracks)
    assert scores["artist"]["order"] == ["a", "c", "b"]  # a has both languages equally often, b is en
    assert scores["language"]["order"] == ["de", "en"]


def test_the_predictions_table_has_a_row_a_track_and_the_vocabularies():
    predictions = predicted()
    table = predictions_table(predictions, track_predictions(predictions))
    assert json.loads(table.schema.metadata[b"vocabularies"]) == {"artist": ["a", "b", "c"], "language": ["de", "en"]}
    assert table["track_id"].to_pylist() == ["t1", "t2", "t3", "t4"]
    assert np.array(table["artist_probabilities"].to_pylist()).sum(1) == pytest.approx(np.ones(4))
    assert table["artist"].to_pylist() == ["a", "b", "nobody", None]
    assert table["artist_said"].to_pylist()[:2] == ["a", "c"]


def test_scores_by_number_of_segments_end_with_the_score_of_all():
    scores = score(predicted(), resamples=10)["language"]
    assert [step["segments"] for step in scores["heard"]] == [1, 2, 3]
    assert scores["heard"][-1]["auc_pr_macro"] == scores["tracks"]["auc_pr_macro"]


def test_one_segment_of_three_is_the_middle_one():
    predictions = replace(predicted(), logits={"artist": [np.arange(9.0).reshape(3, 3)] * 4})
    assert [logits.tolist() for logits in predictions.subsample(1).logits["artist"]] == [[[3, 4, 5]]] * 4
    assert predictions.subsample(2).n_segments == [2] * 4
    assert predictions.subsample(9).n_segments == [3] * 4


def test_numbers_of_segments_grow_in_steps_up_to_the_largest():
    assert segment_counts(1) == [1]
    assert segment_counts(40) == [1, 2, 3, 5, 10, 20, 30, 40]


def test_one_class_or_no_label_has_scores_where_they_are_defined_and_a_report():
    logits = {"artist": [np.zeros((2, 1)), np.zeros((1, 1))], "language": [np.zeros((2, 2)), np.zeros((1, 2))]}
    tracks = pa.table({"track_id": ["1", "2"], "artist": ["a", "a"], "language": pa.array([None, None], pa.string())})
    vocabularies = {"artist": Vocabulary(("a",)), "language": Vocabulary(("de", "en"))}
    predictions = Predictions(tracks=tracks, logits=logits, vocabularies=vocabularies, aggregation=Aggregation())
    scores = score(predictions, tracks, resamples=10)
    assert (scores["artist"]["tracks"]["top_1"], scores["artist"]["tracks"]["auc_roc_macro"]) == (1, None)
    assert (scores["language"]["tracks"]["n"], scores["language"]["tracks"]["top_1"]) == (0, None)
    json.dumps(scores, allow_nan=False)
    result = {"model_id": "m", "mels": "/m", "on": "test", "n_tracks": 2, "n_segments": 3, "tasks": scores}
    curves = {task: ranking.curves(*predictions.segment_probabilities(task)) for task in vocabularies}
    page = report.render_report(result, track_predictions(predictions), curves=curves)
    assert "No evaluated track has a label that is a class" in page
    assert "nan" not in page.lower()


def test_metrics_of_version_0_1_are_still_read():
    result = json.loads((FIXTURES / "report" / "metrics.json").read_text())
    assert "chance" in report.format_report(result)
    scores = score(predicted(), resamples=10)["artist"]
    assert result["tasks"]["artist"].keys() == scores.keys()
    for level in ("tracks", "segments"):
        assert result["tasks"]["artist"][level].keys() == scores[level].keys()
