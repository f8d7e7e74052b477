"""The linear baseline of an experiment learns from the other tracks, and predicts those of the test part."""

import numpy as np
import pytest
from builders.experiments import make_run
from builders.small_mels import ARTISTS, SEGMENTS, write_mels

from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.dataset.splits import split
from mtl_core.experiments.linear_run import linear_result


@pytest.fixture(scope="module")
def mels(tmp_path_factory):
    return open_mel_dataset(write_mels(tmp_path_factory.mktemp("mels")))


def test_the_test_tracks_are_predicted_from_the_others(mels):
    result = linear_result(make_run(recipe="linear", fold=2, epochs=0), mels)
    parts = split(mels.tracks, kind="kfold", seed=0, fold=2)
    tested = parts.filter(np.array(parts["split"]) == "test")["track_id"].to_pylist()
    predictions = result.predictions
    assert predictions.tracks["track_id"].to_pylist() == tested
    assert [logits_SC.shape for logits_SC in predictions.logits["artist"]] == [(SEGMENTS, ARTISTS)] * len(tested)
    for task in ("artist", "language"):
        assert (predictions.probabilities(task).argmax(1) == predictions.targets(task)).all()
    assert result.priors == {"artist": [0.25] * 4, "language": [0.5] * 2}
    assert (result.alpha, result.fingerprint) == (None, mels.fingerprint)


def test_a_baseline_of_one_task_has_one(mels):
    result = linear_result(make_run("language", recipe="linear", epochs=0), mels)
    assert list(result.predictions.logits) == ["language"]
