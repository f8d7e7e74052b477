"""Rows of the table are tagged anew as if their audio were read again."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.audio.front_end import FrontEnd, Segments
from mtl_core.audio.segments import rounds
from mtl_core.audio.track_reader import Track
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.embedding_tagger import EmbeddingTagger
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.tagger import Tagger
from mtl_core.schema import TAGS
from mtl_core.timing import StageTimer

SPREAD = FrontEnd(sampling="spread", segments=32)
VOCABULARIES = {
    "artist": Vocabulary(tuple(f"a{i:03}" for i in range(400))),
    "language": Vocabulary(("de", "en", "fr")),
}
RULE, NEVER, EIGHT = ExitOptions(), ExitOptions(exit="never"), ExitOptions(segments=8)


class Engine:
    """The first frame of a segment is its embedding."""

    def infer(self, mel_STF):
        return mel_STF[:, 0].copy()


class Opened:
    """A track of which each segment has an embedding; one of zeros is silence."""

    def __init__(self, number: int, embedding_SE: np.ndarray) -> None:
        self.row, self.n_segments = {"track_id": f"{number:03}", "uri": f"/{number}"}, min(32, len(embedding_SE))
        self.duration_s, self.lost_s, self.is_lost = 3.0 * len(embedding_SE) + 0.5, 0.0, False
        self._mel_STF = np.repeat(embedding_SE[: self.n_segments, None], 187, axis=1)

    def _segments(self, numbers):
        return Segments(mel_STF=self._mel_STF[numbers], start_s=3.0 * numbers)

    def read(self, segments=None):
        numbers = np.sort(np.concatenate(rounds(self.n_segments))[:segments])
        return Track(self.row, self._segments(numbers), self.duration_s, 0.0, len(numbers) == self.n_segments)

    def read_rounds(self):
        return ((numbers, self._segments(numbers)) for numbers in rounds(self.n_segments))

    def check_lost(self):
        pass


def tracks(rng: np.random.Generator) -> list[Opened]:
    found = []
    for number in range(60):
        n = int(rng.integers(1, 40))
        embedding_SE = rng.normal(2, 1, 96) * (1 + rng.normal(0, 0.4, (n, 96)))
        embedding_SE[rng.random(n) < (1.0 if number < 5 else 0.1)] = 0
        found.append(Opened(number, embedding_SE.astype(np.float32)))
    return found


def heads(rng: np.random.Generator) -> dict[str, Head]:
    return {
        task: Head(
            rng.normal(0, 0.3, (len(labels), 96)).astype(np.float32),
            rng.normal(0, 1, len(labels)).astype(np.float32),
        )
        for task, labels in VOCABULARIES.items()
    }


def aggregation(score: str) -> Aggregation:
    thresholds = {"probability": 0.6, "logit": 4.0, "energy": 4.5, "cosine": 0.2}
    numbers = Aggregation(
        temperature=dict.fromkeys(TASKS, 1.5),
        score=dict.fromkeys(TASKS, score),
        shortest=dict.fromkeys(TASKS, 2.0),
        threshold={"artist": thresholds[score]},
    )
    limit = thresholds[score]
    stops = [Stop(odds_from=odds, named_from=1.1 * limit, null_below=0.9 * limit) for odds in (4.0, 2.0)]
    return replace(
        numbers,
        rounds=tuple(
            Round(
                segments=n,
                numbers=replace(numbers, temperature=dict.fromkeys(TASKS, 1 + 1 / n)),
                stop={"artist": stop, "language": Stop(odds_from=1.5, named_from=-1e30, null_below=-1e30)},
            )
            for n, stop in zip((4, 8), stops, strict=True)
        ),
    )


def read(of: list[Opened], heads_of: dict[str, Head], numbers: Aggregation, options: ExitOptions, **ids) -> list[dict]:
    tagger = Tagger(Engine(), SPREAD, heads_of, VOCABULARIES, numbers, options, trunk_id="t")
    return list(tagger.read_and_tag(of, StageTimer(), **ids))


@pytest.mark.parametrize("score", ["probability", "logit", "energy", "cosine"])
@pytest.mark.parametrize("options", [RULE, NEVER, EIGHT], ids=["rule", "never", "8 segments"])
def test_a_row_is_taken_where_the_model_would_read_the_same_segments(monkeypatch, score, options):
    monkeypatch.setattr("mtl_core.audio.sound_level.has_sound", lambda mel_STF, *_: mel_STF.any((1, 2)))
    monkeypatch.setattr("mtl_core.inference.tagging.tagger.has_sound", lambda mel_STF, *_: mel_STF.any((1, 2)))
    monkeypatch.setattr("mtl_core.inference.tagging.embedding_tagger._BLOCK_VALUES", 3 * 400)
    rng = np.random.default_rng(0)
    of, new_heads = tracks(rng), heads(rng)
    before = []
    for read_as in (RULE, NEVER, EIGHT):
        before += read(of, heads(rng), aggregation(score), read_as, model_id="old", run_id="r1")
    expected = 3 * read(of, new_heads, aggregation(score), options, model_id="new", run_id="r2")
    tagger = EmbeddingTagger(SPREAD, new_heads, VOCABULARIES, aggregation(score), options)
    table, taken_N = tagger.tag(pa.Table.from_pylist(before, schema=TAGS), model_id="new", run_id="r2")
    assert table.schema == TAGS
    assert 40 < taken_N.sum() < 170
    for old, new, row, taken in zip(before, expected, table.to_pylist(), taken_N, strict=True):
        if new["n_segments"] == old["n_segments"]:
            assert taken
        if not taken:
            continue
        assert new["n_segments"] <= old["n_segments"], "all segments, or a round in which the model is sure"
        assert row["embedding"] == (None if old["embedding"] is None else old["embedding"].tolist())
        assert {k: row[k] for k in ("track_id", "n_segments", "n_voted", "trunk_id", "model_id", "run_id")} == {
            "track_id": old["track_id"], "n_segments": old["n_segments"], "n_voted": old["n_voted"],
            "trunk_id": "t", "model_id": "new", "run_id": "r2",
        }  # fmt: skip
        if new["n_segments"] == old["n_segments"]:
            for task in TASKS:
                assert row[task] == new[task]
                assert [top["label"] for top in row[f"{task}_top"]] == [top["label"] for top in new[f"{task}_top"]]
                if new["n_voted"]:
                    for name in (f"{task}_confidence", f"{task}_score"):
                        assert row[name] == pytest.approx(new[name], abs=1e-5, rel=1e-6)
                else:
                    assert row[f"{task}_confidence"] is row[f"{task}_score"] is None


def test_a_row_near_a_limit_has_the_label_that_reading_gives():
    """A score that lies on the threshold falls on the same side, whichever way the products were rounded."""
    rng = np.random.default_rng(1)
    of, new_heads = tracks(rng)[10:20], heads(rng)
    before = read(of, new_heads, Aggregation(), NEVER, model_id="old", run_id="r")
    table = pa.Table.from_pylist(before, schema=TAGS)
    for row, track in zip(before, of, strict=True):
        for score in (np.nextafter(row["artist_score"], 0), row["artist_score"], np.nextafter(row["artist_score"], 1)):
            numbers = Aggregation(threshold={"artist": float(score)})
            (expected,) = read([track], new_heads, numbers, NEVER, model_id="new", run_id="r")
            tags, _ = EmbeddingTagger(SPREAD, new_heads, VOCABULARIES, numbers, NEVER).tag(
                table, model_id="new", run_id="r"
            )
            assert tags["artist"].to_pylist()[of.index(track)] == expected["artist"]


def test_a_length_that_rounding_leaves_open_is_not_taken():
    """9 segments of 29.9999 s are all of them; of 30 s they are not, and float32 cannot tell."""
    rng = np.random.default_rng(2)
    new_heads = heads(rng)
    (row,) = read([Opened(0, rng.normal(size=(9, 96)).astype(np.float32))], new_heads, Aggregation(), NEVER,
                  model_id="old", run_id="r")  # fmt: skip
    rows = [row | {"duration_s": s, "n_segments": n} for s, n in ((29.9, 9), (29.9999, 9), (30.0, 10), (30.0, 9))]
    tagger = EmbeddingTagger(SPREAD, new_heads, VOCABULARIES, Aggregation(), NEVER)
    _, taken_N = tagger.tag(pa.Table.from_pylist(rows, schema=TAGS), model_id="new", run_id="r")
    assert taken_N.tolist() == [True, False, True, False]


def test_a_row_whose_logits_are_not_finite_is_not_taken():
    rng = np.random.default_rng(3)
    of, wide = tracks(rng)[10:12], {"artist": Head(np.full((400, 96), 3e38, np.float32), np.zeros(400, np.float32))}
    before = read(of, heads(rng), Aggregation(), NEVER, model_id="old", run_id="r")
    tagger = EmbeddingTagger(SPREAD, wide, {"artist": VOCABULARIES["artist"]}, Aggregation(), NEVER)
    table, taken_N = tagger.tag(pa.Table.from_pylist(before, schema=TAGS), model_id="new", run_id="r")
    assert not taken_N.any()
    assert table["language"].null_count == table["language_top"].null_count == len(table), "the model has no such head"


def test_a_row_of_segments_that_no_rule_asks_for_is_not_taken():
    """A fixed number of segments that ends no round; and 4 or 7 of a recording that has one round."""
    rng = np.random.default_rng(4)
    new_heads = heads(rng)
    (row,) = read([Opened(0, rng.normal(size=(32, 96)).astype(np.float32))], new_heads, Aggregation(), NEVER,
                  model_id="old", run_id="r")  # fmt: skip
    sure = Stop(odds_from=0, named_from=-1e30, null_below=-1e30)
    rule = Aggregation(rounds=tuple(
        Round(segments=n, numbers=Aggregation(), stop=dict.fromkeys(TASKS, sure)) for n in (4, 8)
    ))  # fmt: skip
    numbers = [(n, 100.5) for n in (3, 4, 5, 8, 12, 16, 24, 32)] + [(n, 24.5) for n in (4, 7, 8)]
    rows = [row | {"n_segments": n, "duration_s": s} for n, s in numbers]
    tagger = EmbeddingTagger(SPREAD, new_heads, VOCABULARIES, rule, RULE)
    _, taken_N = tagger.tag(pa.Table.from_pylist(rows, schema=TAGS), model_id="new", run_id="r")
    assert [n for (n, _), taken in zip(numbers, taken_N, strict=True) if taken] == [4, 8, 16, 32, 8]
