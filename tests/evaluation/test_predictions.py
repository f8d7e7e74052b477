import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import predictions, ranking, report
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference.aggregation import Aggregation

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


def heard(**aggregation):
    logits = {
        "artist": [np.array([[4.0, 0, 0], [4.0, 0, 0]]), np.array([[0, 0, 1.0]]), np.zeros((3, 3)), np.zeros((1, 3))],
        "language": [np.array([[2.0, 0], [2.0, 0]]), np.array([[0, 1.0]]), np.zeros((3, 2)), np.array([[3.0, 0]])],
    }
    vocabularies = {"artist": Vocabulary(("a", "b", "c")), "language": Vocabulary(("de", "en"))}
    return Predictions(tracks=TRACKS, logits=logits, vocabularies=vocabularies, aggregation=Aggregation(**aggregation))


def test_what_is_said_is_what_tagging_says():
    first, second, stranger, unlabelled = predictions.track_predictions(heard(threshold={"artist": 0.9}))
    assert (first.track_id, first.n_segments) == ("t1", 2)
    p = np.exp(4) / (np.exp(4) + 2)
    assert first.by_task["artist"].predicted == "a"
    assert first.by_task["artist"].confidence == pytest.approx(p)
    assert first.by_task["artist"].true_probability == pytest.approx(p)
    assert (first.by_task["artist"].unknown, second.by_task["artist"].unknown) == (False, True)
    assert (second.by_task["artist"].true, second.by_task["artist"].predicted) == ("b", "c")
    assert (stranger.by_task["artist"].true, stranger.by_task["artist"].true_probability) == ("nobody", None)
    assert (unlabelled.by_task["artist"].true, unlabelled.by_task["artist"].true_probability) == (None, None)


def test_scores_leave_out_what_has_no_class_and_count_segments():
    found = predictions.score_predictions(heard(), TRAINING, resamples=10, seed=0)
    artist, language = found["artist"], found["language"]
    assert (artist["tracks"]["n"], artist["segments"]["n"], artist["segments"]["n_songs"]) == (2, 3, 2)
    assert (language["tracks"]["n"], language["segments"]["n"]) == (4, 7)
    assert artist["tracks"]["top_1"] == 0.5
    assert artist["segments"]["top_1"] == pytest.approx(2 / 3)
    json.dumps(found, allow_nan=False)


def test_temperature_is_in_the_probabilities_of_both_levels():
    plain = predictions.score_predictions(heard(), TRAINING, resamples=0, seed=0)["language"]
    hot = predictions.score_predictions(heard(temperature={"language": 5.0}), TRAINING, resamples=0, seed=0)["language"]
    for level in ("tracks", "segments"):
        assert hot[level]["nll"] != plain[level]["nll"]
        assert hot[level]["auc_pr_macro"] == plain[level]["auc_pr_macro"]


def test_baselines_are_the_prior_and_the_artists_language():
    found = predictions.score_predictions(heard(), TRAINING, resamples=0, seed=0)["language"]["baselines"]
    assert set(found) == {"class prior", "via artist"}
    assert found["class prior"]["top_1"] == 0.5
    # a is de and b en; c has no language: t1 is de, and the rest are even, which goes to de
    assert found["via artist"]["top_1"] == 0.5
    assert found["via artist"]["auc_roc_macro"] == pytest.approx(0.75)
    assert (
        predictions.score_predictions(heard(), TRAINING.slice(0, 0), resamples=0, seed=0)["artist"]["baselines"] == {}
    )


def test_artists_are_shown_by_language():
    tracks = pa.table({"track_id": ["1", "2", "3"], "artist": ["c", "b", "a"], "language": ["de", "en", "en"]})
    found = predictions.score_predictions(heard(), tracks, resamples=0, seed=0)
    assert found["artist"]["order"] == ["a", "c", "b"]  # a ties between the two, b is en
    assert found["language"]["order"] == ["de", "en"]


def test_predictions_are_a_row_a_track_with_the_vocabularies():
    h = heard()
    table = predictions.predictions(h, predictions.track_predictions(h))
    assert json.loads(table.schema.metadata[b"vocabularies"]) == {"artist": ["a", "b", "c"], "language": ["de", "en"]}
    assert table["track_id"].to_pylist() == ["t1", "t2", "t3", "t4"]
    assert np.array(table["artist_probabilities"].to_pylist()).sum(1) == pytest.approx(np.ones(4))
    assert table["artist"].to_pylist() == ["a", "b", "nobody", None]


def test_hearing_all_is_the_score_and_hearing_one_takes_the_middle_segment():
    h = heard()
    steps = predictions.score_predictions(h, TRAINING, resamples=10, seed=0)["language"]["heard"]
    whole = predictions.score_predictions(h, TRAINING, resamples=0, seed=0)["language"]["tracks"]
    assert [step["segments"] for step in steps] == [1, 2, 3]
    assert steps[-1]["auc_pr_macro"] == whole["auc_pr_macro"]
    three = np.arange(9.0).reshape(3, 3)
    one = replace(h, logits={"artist": [three] * 4}).subsample(1)
    assert [logits.tolist() for logits in one.logits["artist"]] == [[[3, 4, 5]]] * 4
    assert replace(h, logits={"artist": [three] * 4}).subsample(2).n_segments == [2] * 4


def test_the_steps_of_what_is_heard_go_to_the_end():
    assert predictions.segment_counts(1) == [1]
    assert predictions.segment_counts(40) == [1, 2, 3, 5, 10, 20, 30, 40]


def test_one_class_or_no_label_is_scored_where_it_can_be_and_shown():
    logits = {"artist": [np.zeros((2, 1)), np.zeros((1, 1))], "language": [np.zeros((2, 2)), np.zeros((1, 2))]}
    tracks = pa.table({"track_id": ["1", "2"], "artist": ["a", "a"], "language": pa.array([None, None], pa.string())})
    vocabularies = {"artist": Vocabulary(("a",)), "language": Vocabulary(("de", "en"))}
    h = Predictions(tracks=tracks, logits=logits, vocabularies=vocabularies, aggregation=Aggregation())
    found = predictions.score_predictions(h, tracks, resamples=10, seed=0)
    assert (found["artist"]["tracks"]["top_1"], found["artist"]["tracks"]["auc_roc_macro"]) == (1, None)
    assert (found["language"]["tracks"]["n"], found["language"]["tracks"]["top_1"]) == (0, None)
    json.dumps(found, allow_nan=False)
    result = {"model_id": "m", "mels": "/m", "on": "test", "n_tracks": 2, "n_segments": 3, "tasks": found}
    curves = {task: ranking.curves(*h.segment_probabilities(task)) for task in vocabularies}
    page = report.render_report(result, predictions.track_predictions(h), curves=curves)
    assert "No track of this part has a label" in page
    assert "nan" not in page.lower()
