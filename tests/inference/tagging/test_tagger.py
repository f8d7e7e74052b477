"""From the network's output to rows of tags, and to the failures of tracks whose output is unusable."""

import numpy as np
import pytest

from mtl_core.audio.front_end import FrontEnd, Segments
from mtl_core.audio.segments import rounds
from mtl_core.audio.track_reader import FailedTrack, Track
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import TrackError
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.tagger import Tagger
from mtl_core.schema import TAGS
from mtl_core.timing import StageTimer

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


class Opened:
    """A track of which each segment has a level; it counts those that are read."""

    def __init__(self, *levels: float, lost: bool = False, fails_from: int = 99) -> None:
        self.whole, self.n_segments, self.n_read = track("x", *levels), len(levels), 0
        self.row, self.duration_s, self.lost_s = self.whole.row, self.whole.duration_s, 0.0
        self.is_lost, self._fails_from = lost, fails_from

    def read(self, segments=None):
        numbers = np.sort(np.concatenate(rounds(self.n_segments))[:segments])
        return Track(self.row, self._read(numbers), self.duration_s, 0.0, len(numbers) == self.n_segments)

    def read_rounds(self):
        for numbers in rounds(self.n_segments):
            yield numbers, self._read(numbers)

    def check_lost(self):
        pass

    def _read(self, numbers):
        if self.n_read >= self._fails_from:
            raise TrackError("decode", "crashed", "the decoder was killed")
        self.n_read += len(numbers)
        segments = self.whole.segments
        return Segments(mel_STF=segments.mel_STF[numbers], start_s=segments.start_s[numbers])


#: After 4 of more segments a task is decided where its label is 20 times as probable as the next; after 8, or below a
#: probability of .4, in any case.
STOPS = [Stop(odds_from=20, named_from=0.6, null_below=0.4), Stop(odds_from=1, named_from=0, null_below=0)]
WITH_ROUNDS = Aggregation(
    threshold={"artist": 0.5},
    rounds=tuple(
        Round(segments=n, numbers=Aggregation(threshold={"artist": 0.5}), stop=dict.fromkeys(VOCABULARIES, stop))
        for n, stop in zip((4, 8), STOPS, strict=True)
    ),
)


def read_and_tag(open_track, options=None, aggregation=WITH_ROUNDS):
    of = tagger(aggregation=aggregation, options=options)
    (result,) = of.read_and_tag([open_track], StageTimer(), model_id="m", run_id="r")
    return result


def test_a_track_is_read_until_its_tags_are_decided():
    clear = Opened(*[1.0] * 32)
    row = read_and_tag(clear)
    assert (row["artist"], row["n_segments"], clear.n_read) == ("a", 4, 4)
    assert list(row) == TAGS.names
    mixed = Opened(*[1.0] * 16, *[2.0] * 16)
    row = read_and_tag(mixed)
    assert mixed.n_read == 8
    whole = Opened(*[1.0] * 8)
    assert (read_and_tag(whole)["n_segments"], whole.n_read) == (8, 8)


def test_a_track_that_is_clearly_unknown_is_null_without_more_segments():
    unclear = Opened(*[1.0, 2.0, 3.0, 1.0] * 8)
    aggregation = WITH_ROUNDS.to_dict()
    for of in aggregation["rounds"]:
        of["stop"]["artist"] |= {"null_below": 0.9999}
        of["stop"]["language"] |= {"odds_from": 0}
    row = read_and_tag(unclear, aggregation=Aggregation(**aggregation))
    assert (row["artist"], unclear.n_read) == (None, 4)


@pytest.mark.parametrize(
    ("options", "n"), [(ExitOptions(exit="never"), 32), (ExitOptions(segments=6), 6), (ExitOptions(segments=99), 32)]
)
def test_a_fixed_number_of_segments(options, n):
    clear = Opened(*[1.0] * 32)
    assert (read_and_tag(clear, options)["n_segments"], clear.n_read) == (n, n)


def test_silence_and_damage_are_not_decided_early():
    late = Opened(*[SILENCE] * 29, 2.0, 2.0, 2.0)
    assert (read_and_tag(late)["artist"], late.n_read) == ("b", 16)  # which has the numbers of 8
    silent = Opened(*[SILENCE] * 32)
    row = read_and_tag(silent)
    assert (row["artist"], row["embedding"], row["n_segments"], row["n_voted"]) == (None, None, 32, 0)
    assert silent.n_read == 32
    damaged = Opened(*[1.0] * 32, lost=True)
    read_and_tag(damaged)
    assert damaged.n_read == 32


def test_a_decoder_that_dies_between_rounds_costs_the_track():
    failed = read_and_tag(Opened(*[1.0] * 16, *[2.0] * 16, fails_from=4))
    assert isinstance(failed, FailedTrack) and failed.error.error == "crashed"


def tagger(aggregation=None, options=None, **vocabularies):
    vocabularies = vocabularies or VOCABULARIES
    heads = {
        task: Head(np.eye(len(labels), 96, dtype=np.float32), np.zeros(len(labels), np.float32))
        for task, labels in vocabularies.items()
    }
    return Tagger(Engine(), FrontEnd(), heads, vocabularies, aggregation or Aggregation(), options)


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
    assert (with_silence["artist"], with_silence["n_voted"]) == ("b", 1)


def test_a_silent_track_is_no_failure_and_has_no_name():
    tracks = [track("x", 1), track("silent", SILENCE, SILENCE), track("y", 2)]
    before, row, after = tagger().tag(tracks, model_id="m", run_id="r")
    assert row["embedding"] is None
    assert (row["n_voted"], row["artist"], row["artist_confidence"], row["artist_top"]) == (0, None, None, [])
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
    failure = failed.as_row(model_id="m", run_id="r")
    assert (failure["track_id"], failure["stage"], failure["error"]) == ("bad", "model", "failed")
    assert not failure["permanent"], "the next night tries it again"
    assert (before["track_id"], after["track_id"]) == ("x", "y")


def test_a_task_without_a_head_is_null():
    (row,) = tagger(artist=VOCABULARIES["artist"]).tag([track("x", 2)], model_id="m", run_id=None)
    assert (row["artist"], row["language"], row["language_confidence"], row["language_top"]) == ("b", None, None, None)
