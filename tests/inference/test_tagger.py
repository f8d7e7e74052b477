"""From the network's output to rows of tags, and to the failures of tracks whose output is unusable."""

import numpy as np
import pytest

from mtl_core.audio.front_end import Segments
from mtl_core.audio.track_reader import FailedTrack, Track
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.tagger import Tagger
from mtl_core.schema import TAGS

VOCABULARIES = {"artist": Vocabulary(("a", "b", "c")), "language": Vocabulary(("de", "en"))}


class Engine:
    """Returns outputs that depend on a segment's first value: the class, or a value that is not finite."""

    def infer(self, mel_STF):
        first_S = mel_STF[:, 0, 0]
        logits = {task: np.zeros((len(first_S), len(labels)), np.float32) for task, labels in VOCABULARIES.items()}
        embedding_SE = np.repeat(first_S[:, None], 96, 1)
        for i, value in enumerate(first_S):
            if value < 2:
                logits["artist"][i, int(value)] = 5
        logits["language"][first_S == 7, 1] = np.nan
        embedding_SE[first_S == 8] = np.inf
        return logits, embedding_SE


def track(name: str, *values: float) -> Track:
    mel_STF = np.zeros((len(values), 187, 96), np.float32)
    mel_STF[:, 0, 0] = values
    segments = Segments(mel_STF=mel_STF, start_s=3.0 * np.arange(len(values)))
    return Track({"track_id": name, "uri": f"/{name}"}, segments, 3.0 * len(values))


def tagger(vocabularies=VOCABULARIES):
    return Tagger(Engine(), vocabularies, Aggregation())


def test_each_track_is_tagged_from_its_own_segments():
    rows = tagger().tag([track("x", 0, 0), track("y", 1), track("z", 1, 1, 0)], model_id="m", run_id="r")
    assert [row["artist"] for row in rows] == ["a", "b", "b"]
    assert [row["n_segments"] for row in rows] == [2, 1, 3]
    assert rows[2]["embedding"] == pytest.approx(np.full(96, 2 / 3))
    assert all(list(row) == TAGS.names for row in rows)
    assert tagger().tag([], model_id="m", run_id="r") == []


@pytest.mark.parametrize("value", [7, 8], ids=["logits", "embedding"])
def test_a_track_whose_output_is_not_finite_fails_alone(value):
    before, failed, after = tagger().tag(
        [track("x", 0), track("bad", 0, value), track("y", 1)], model_id="m", run_id="r"
    )
    assert isinstance(failed, FailedTrack)
    failure = failed.as_row(attempts=1, model_id="m", run_id="r")
    assert (failure["track_id"], failure["stage"], failure["error"]) == ("bad", "model", "failed")
    assert not failure["permanent"], "the next night tries it again"
    assert (before["artist"], after["artist"]) == ("a", "b")


def test_a_task_without_a_head_is_null():
    class ArtistOnly(Engine):
        def infer(self, mel_STF):
            logits, embedding_SE = super().infer(mel_STF)
            return {"artist": logits["artist"]}, embedding_SE

    (row,) = Tagger(ArtistOnly(), {"artist": VOCABULARIES["artist"]}, Aggregation()).tag(
        [track("x", 1)], model_id="m", run_id=None
    )
    assert (row["artist"], row["language"], row["language_confidence"], row["language_top"]) == ("b", None, None, None)
