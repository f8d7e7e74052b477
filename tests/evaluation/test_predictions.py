import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import baselines, metrics
from mtl_core.evaluation import predictions as predictions_module
from mtl_core.evaluation.pages import report
from mtl_core.evaluation.pages.task_section import class_curves
from mtl_core.evaluation.predictions import (
    Predictions,
    choose_sample,
    predictions_table,
    score_predictions,
    segment_counts,
    track_predictions,
)
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head, mean_embedding
from mtl_core.schema import TAGS

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
TRACKS = pa.table(
    {
        "track_id": ["t1", "t2", "t3", "t4"],
        "artist": pa.array(["a", "b", "nobody", None], pa.string()),
        "language": pa.array(["de", "en", "en", "de"], pa.string()),
    }
)
SILENT = pa.table({"track_id": ["silent"], "artist": ["b"], "language": pa.array([None], pa.string())})
TRAINING = pa.table(
    {
        "track_id": [f"r{i}" for i in range(5)],
        "artist": pa.array(["a", "a", "b", "c", None], pa.string()),
        "language": pa.array(["de", "en", "en", None, "de"], pa.string()),
    }
)


def make_predictions(tracks, logits, vocabularies, **aggregation):
    """Predictions whose embeddings are the logits of all tasks, side by side, and whose heads pick them out."""
    segments = [np.hstack(arrays).astype(np.float32) for arrays in zip(*logits.values(), strict=True)]
    weights = np.split(
        np.eye(segments[0].shape[1], dtype=np.float32), np.cumsum([len(v) for v in vocabularies.values()])
    )
    return Predictions(
        tracks=tracks,
        without_sound=tracks.slice(0, 0),
        n_segments=np.array([len(x) for x in segments]),
        embedding_NE=np.stack([mean_embedding(x) for x in segments]),
        sample_K=np.arange(len(segments)),
        segments=segments,
        heads={task: Head(w, np.zeros(len(w), np.float32)) for task, w in zip(vocabularies, weights, strict=False)},
        vocabularies=vocabularies,
        aggregation=Aggregation(**aggregation),
    )


def predicted(**aggregation):
    """Predictions for TRACKS."""
    logits = {
        "artist": [np.array([[4.0, 0, 0], [4.0, 0, 0]]), np.array([[0, 0, 1.0]]), np.zeros((3, 3)), np.zeros((1, 3))],
        "language": [np.array([[2.0, 0], [2.0, 0]]), np.array([[0, 1.0]]), np.zeros((3, 2)), np.array([[3.0, 0]])],
    }
    vocabularies = {"artist": Vocabulary(("a", "b", "c")), "language": Vocabulary(("de", "en"))}
    return make_predictions(TRACKS, logits, vocabularies, **aggregation)


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


def test_the_predictions_table_has_a_row_a_track_and_no_number_for_every_class():
    predictions = replace(predicted(threshold={"artist": 0.9}), without_sound=SILENT)
    table = predictions_table(predictions, track_predictions(predictions))
    assert table["track_id"].to_pylist() == ["silent", "t1", "t2", "t3", "t4"]
    assert table["artist"].to_pylist() == ["b", "a", "b", "nobody", None]
    assert table["artist_predicted"].to_pylist()[:3] == [None, "a", "c"]
    assert table["artist_tag"].to_pylist() == [None, "a", None, None, None]
    assert table["n_segments"].to_pylist() == [0, 2, 1, 3, 1]
    assert [len(top) for top in table["language_top"].to_pylist()] == [0, 2, 2, 2, 2]
    assert table["artist_true_probability"].to_pylist()[3:] == [None, None]
    assert table.schema.field("artist_top").type == TAGS.field("artist_top").type
    assert table["embedding"].null_count == 1


def test_above_the_limit_the_segments_of_a_seeded_sample_of_whole_tracks_are_scored(monkeypatch):
    n_segments = np.full(1000, 30)
    assert choose_sample(n_segments, 68, 0).tolist() == list(range(1000))
    monkeypatch.setattr(predictions_module, "SEGMENTS", 3000)
    first, second, other = (choose_sample(n_segments, 68, seed).tolist() for seed in (0, 0, 1))
    assert len(first) == 100 and first == second != other
    predictions = predicted()
    sample = replace(predictions, sample_K=np.array([0, 3]), segments=[predictions.segments[i] for i in (0, 3)])
    scores = score(sample)["language"]
    assert (scores["tracks"]["n"], scores["segments"]["n"]) == (4, 3)
    assert scores["sampled"]["segments"] == "2 random tracks of 4, with all their segments"
    assert score(predictions)["language"]["sampled"] == {}


def test_a_constant_prediction_scores_as_its_array():
    t, prior = np.array([0] * 6 + [1] * 3 + [3]), np.array([0.5, 0.3, 0.1, 0.1])
    expected = metrics.scores(np.tile(prior, (10, 1)), t, resamples=0)
    assert baselines.constant_scores(prior, t) == pytest.approx({key: expected[key] for key in baselines.CHANCE_KEYS})


def test_scores_by_number_of_segments_end_with_the_score_of_all():
    scores = score(predicted(), resamples=10)["language"]
    assert [step["segments"] for step in scores["heard"]] == [1, 2, 3]
    assert scores["heard"][-1]["auc_pr_macro"] == scores["tracks"]["auc_pr_macro"]


def test_one_segment_of_three_is_the_middle_one():
    predictions = replace(predicted(), segments=[np.arange(9.0).reshape(3, 3)] * 4)
    assert predictions.shortened(1).tolist() == [[3, 4, 5]] * 4
    assert predictions.shortened(2).tolist() == [[3, 4, 5]] * 4  # the mean of the first and the last
    assert predictions.shortened(9).tolist() == [[3, 4, 5]] * 4


def test_numbers_of_segments_grow_in_steps_up_to_the_largest():
    assert segment_counts(1) == [1]
    assert segment_counts(40) == [1, 2, 3, 5, 10, 20, 30, 40]


def test_one_class_or_no_label_has_scores_where_they_are_defined_and_a_report():
    logits = {"artist": [np.zeros((2, 1)), np.zeros((1, 1))], "language": [np.zeros((2, 2)), np.zeros((1, 2))]}
    tracks = pa.table({"track_id": ["1", "2"], "artist": ["a", "a"], "language": pa.array([None, None], pa.string())})
    vocabularies = {"artist": Vocabulary(("a",)), "language": Vocabulary(("de", "en"))}
    predictions = make_predictions(tracks, logits, vocabularies)
    scores = score(predictions, tracks, resamples=10)
    assert (scores["artist"]["tracks"]["top_1"], scores["artist"]["tracks"]["auc_roc_macro"]) == (1, None)
    assert (scores["language"]["tracks"]["n"], scores["language"]["tracks"]["top_1"]) == (0, None)
    json.dumps(scores, allow_nan=False)
    result = {"model_id": "m", "mels": "/m", "on": "test", "n_tracks": 2, "n_segments": 3, "tasks": scores}
    curves = class_curves(predictions, scores)
    page = report.render_report(result, track_predictions(predictions), curves=curves)
    assert "No evaluated track has a label that is a class" in page
    assert "nan" not in page.lower()


def test_metrics_of_version_0_1_are_still_read():
    result = json.loads((FIXTURES / "report" / "metrics.json").read_text())
    assert "chance" in report.format_report(result)
    scores = score(predicted(), resamples=10)["artist"]
    assert result["tasks"]["artist"].keys() <= scores.keys()
    for level in ("tracks", "segments"):
        assert result["tasks"]["artist"][level].keys() <= scores[level].keys()
