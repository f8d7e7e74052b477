"""From the network's output to rows of tags, and to the failures of tracks whose output is unusable."""

import numpy as np
import pytest

from mtl_core.audio.front_end import FrontEnd, Segments
from mtl_core.audio.track_reader import FailedTrack, Track
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.heads import Head
from mtl_core.inference.tagger import Tagger
from mtl_core.schema import TAGS

VOCABULARIES = {"artist": Vocabulary(("a", "b", "c")), "language": Vocabulary(("de", "en"))}
SILENCE, NOT_FINITE, TOO_LARGE = 0.0, 8.0, 9.0


class Engine:
    """Returns embeddings that depend on a segment's level: 1, 2 or 3 points at one of the first three values."""

    def infer(self, mel_STF):
        level_S = mel_STF[:, 0, 0]
        assert SILENCE not in level_S, "the network need not see silence"
        embedding_SE = np.zeros((len(level_S), 96), np.float32)
        for i, level in enumerate(level_S):
            embedding_SE[i, int(level) - 1] = 5
        embedding_SE[level_S == NOT_FINITE] = np.inf
        embedding_SE[level_S == TOO_LARGE] = 3e38
        return embedding_SE


def track(name: str, *levels: float) -> Track:
    mel_STF = np.ones((len(levels), 187, 96), np.float32) * np.array(levels, np.float32)[:, None, None]
    segments = Segments(mel_STF=mel_STF, start_s=3.0 * np.arange(len(levels)))
    return Track({"track_id": name, "uri": f"/{name}"}, segments, 3.0 * len(levels))


def tagger(**vocabularies):
    vocabularies = vocabularies or VOCABULARIES
    heads = {
        task: Head(np.eye(len(labels), 96, dtype=np.float32), np.zeros(len(labels), np.float32))
        for task, labels in vocabularies.items()
    }
    return Tagger(Engine(), FrontEnd(), heads, vocabularies, Aggregation())


def test_each_track_is_tagged_from_its_own_segments():
    rows = tagger().tag([track("x", 1, 1), track("y", 2), track("z", 2, 2, 1)], model_id="m", run_id="r")
    assert [row["artist"] for row in rows] == ["a", "b", "b"]
    assert [row["n_segments"] for row in rows] == [2, 1, 3]
    assert rows[2]["embedding"][:3] == pytest.approx([5 / 3, 10 / 3, 0])
    assert all(list(row) == TAGS.names for row in rows)
    assert tagger().tag([], model_id="m", run_id="r") == []


def test_segments_without_sound_do_not_count():
    tracks = [track("x", 2, SILENCE, SILENCE), track("y", 2)]
    with_silence, without = tagger().tag(tracks, model_id="m", run_id="r")
    assert (with_silence["embedding"] == without["embedding"]).all()
    assert (with_silence["artist"], with_silence["n_segments"]) == ("b", 1)


def test_a_silent_track_is_no_failure_and_has_no_name():
    tracks = [track("x", 1), track("silent", SILENCE, SILENCE), track("y", 2)]
    before, row, after = tagger().tag(tracks, model_id="m", run_id="r")
    assert row["embedding"] is None
    assert (row["n_segments"], row["artist"], row["artist_confidence"], row["artist_top"]) == (0, None, None, [])
    assert (before["artist"], after["artist"]) == ("a", "b")
    (alone,) = tagger().tag(tracks[1:2], model_id="m", run_id="r")
    assert {**alone, "tagged_at": None} == {**row, "tagged_at": None}


def test_a_tag_is_a_function_of_the_embedding_that_is_written():
    rng = np.random.default_rng(0)
    heads = {"artist": Head(rng.normal(size=(3, 96)).astype(np.float32), np.zeros(3, np.float32))}
    (row,) = Tagger(Engine(), FrontEnd(), heads, {"artist": VOCABULARIES["artist"]}, Aggregation()).tag(
        [track("x", 1, 2, 3, 3)], model_id="m", run_id="r"
    )
    logits_C = heads["artist"].logits(row["embedding"])
    assert row["embedding"].dtype == np.float32
    assert row["artist"] == VOCABULARIES["artist"].labels[int(logits_C.argmax())]


@pytest.mark.parametrize("level", [NOT_FINITE, TOO_LARGE], ids=["embedding", "logits"])
def test_a_track_whose_output_is_not_finite_fails_alone(level):
    heads = {"artist": Head(np.full((3, 96), 10, np.float32), np.zeros(3, np.float32))}
    wide = Tagger(Engine(), FrontEnd(), heads, {"artist": VOCABULARIES["artist"]}, Aggregation())
    tracks = [track("x", 1), track("bad", 1, level), track("y", 2)]
    with np.errstate(over="ignore"):
        before, failed, after = wide.tag(tracks, model_id="m", run_id="r")
    assert isinstance(failed, FailedTrack)
    failure = failed.as_row(attempts=1, model_id="m", run_id="r")
    assert (failure["track_id"], failure["stage"], failure["error"]) == ("bad", "model", "failed")
    assert not failure["permanent"], "the next night tries it again"
    assert (before["track_id"], after["track_id"]) == ("x", "y")


def test_a_task_without_a_head_is_null():
    (row,) = tagger(artist=VOCABULARIES["artist"]).tag([track("x", 2)], model_id="m", run_id=None)
    assert (row["artist"], row["language"], row["language_confidence"], row["language_top"]) == ("b", None, None, None)
