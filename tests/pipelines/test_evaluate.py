"""Evaluation end to end on a small artifact and random mels, on a disk and on S3, compared with the model itself."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from builders.mels import write_mel_files
from builders.models import save, untrained_artifact

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import InputError
from mtl_core.evaluation import metrics
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.inference.tagging.aggregation import Aggregation, tag
from mtl_core.inference.tagging.softmax import probabilities
from mtl_core.model.cnn import drop_head
from mtl_core.pipelines.evaluate import EvaluationOptions, evaluate
from mtl_core.pipelines.predict import _labelled_in_split
from mtl_core.storage.location import Location

ARTISTS = tuple(f"artist {i}" for i in range(6))
LANGUAGES = ("de", "en", "<b>it</b>")
SPLITS = ("train", "train", "train", "validation", "test")


def catalogue():
    """6 artists x 5 songs of 1 to 4 segments, the last song of each artist in the test split; and three odd tracks."""
    random = np.random.default_rng(0)
    tracks = [
        {
            "track_id": f"{a}/{s}.mp3",
            "artist": artist,
            "language": sorted(LANGUAGES)[a % 3],
            "album": None,
            "split": SPLITS[s],
            "mel": random.random((1 + (a + s) % 4, 187, 96)).astype(np.float16),
        }
        for a, artist in enumerate(ARTISTS)
        for s in range(5)
    ]
    odd = [("no labels", None, None, "test"), ("stranger", "nobody", None, "test"), ("new", ARTISTS[0], "de", None)]
    for name, artist, language, split in odd:
        mel = random.random((2, 187, 96)).astype(np.float16)
        tracks.append(
            {"track_id": name, "artist": artist, "language": language, "album": None, "split": split, "mel": mel}
        )
    return tracks


def write_mels(tracks, location, files=3, front_end=None):
    """In row groups of 7 segments, so that some tracks are in two of them."""
    tracks_of_file = [tracks[number::files] for number in range(files)]
    return write_mel_files(tracks_of_file, location, front_end=front_end, row_group_size=7)


def write_model(tracks, location):
    artifact = untrained_artifact(
        {"artist": ARTISTS, "language": tuple(sorted(LANGUAGES))},
        aggregation=Aggregation(temperature={"artist": 0.5}, threshold={"artist": 0.4}),
        metrics={
            "split": {"kind": "paper", "seed": 3, "fold": 0, "group_column": None},
            "history": [
                {"epoch": 1, "train_loss": 2.0, "validation_loss": 2.5},
                {"epoch": 2, "train_loss": 1.5, "validation_loss": None},
            ],
        },
    )
    return save(artifact, location, {track["track_id"]: track["split"] for track in tracks if track["split"]})


@pytest.fixture(scope="module")
def tracks():
    return catalogue()


@pytest.fixture(scope="module")
def place(tracks, tmp_path_factory):
    root = Location(str(tmp_path_factory.mktemp("evaluation")))
    write_mels(tracks, root / "mels")
    write_model(tracks, root / "model")
    return root


@pytest.fixture(scope="module")
def evaluated(place, local_ray):
    """The result on the test split, and the folder of its files."""
    return evaluate(place / "model", place / "mels", place / "out", EvaluationOptions()), Path((place / "out").path)


def test_scores_are_those_of_the_model_called_directly(tracks, place, evaluated):
    result, out = evaluated
    assert json.loads((out / "metrics.json").read_text()) == result
    artifact = artifacts.load_artifact(place / "model")
    tested = sorted((t for t in tracks if t["split"] == "test" and t["artist"]), key=lambda t: t["track_id"])
    assert (result["on"], result["n_tracks"], result["n_segments"]) == ("test", 7, sum(len(t["mel"]) for t in tested))
    predictions = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [p["track_id"] for p in predictions] == [t["track_id"] for t in tested]
    for task, vocabulary in artifact.vocabularies.items():
        temperature = artifact.aggregation.temperature[task]
        with torch.inference_mode():
            mels = [torch.tensor(t["mel"].astype(np.float32))[:, None] for t in tested]
            logits_NC = np.stack([artifact.model(mel_S1TF)[task].numpy().mean(0) for mel_S1TF in mels])
        p_NC = probabilities(logits_NC, temperature)
        targets = vocabulary.encode([t[task] for t in tested])
        expected = metrics.scores(p_NC, targets, [t["track_id"] for t in tested])
        scores = result["tasks"][task]
        assert scores["tracks"]["n"] == 6  # the artist of "stranger" is not a class
        for key in ("auc_pr_macro", "auc_pr_micro", "auc_roc_macro", "top_1", "top_5", "nll", "ece"):
            assert scores["tracks"][key] == pytest.approx(expected[key], abs=1e-5)
        assert scores["segments"]["n"] == sum(len(t["mel"]) for t in tested if t["track_id"] != "stranger")
        tags = [tag(logits_C, task, vocabulary, artifact.aggregation) for logits_C in logits_NC]
        assert [p[f"{task}_tag"] for p in predictions] == [x.label for x in tags]
        assert [p[f"{task}_predicted"] for p in predictions] == [x.top[0][0] for x in tags]
        for p, x in zip(predictions, tags, strict=True):
            assert [entry["label"] for entry in p[f"{task}_top"]] == [label for label, _ in x.top]
            assert p[f"{task}_confidence"] == pytest.approx(x.confidence, abs=1e-5)
        assert [p[task] for p in predictions] == [t[task] for t in tested]


def test_predictions_have_the_mean_embedding_that_their_tags_follow_from(place, evaluated):
    model = load_cpu_model(place / "model")
    for row in pq.read_table(evaluated[1] / "predictions.parquet").to_pylist():
        for task, head in model.heads.items():
            logits_C = head.logits(np.array(row["embedding"], np.float32))
            best = tag(logits_C, task, model.vocabularies[task], model.aggregation)
            assert (row[f"{task}_predicted"], row[f"{task}_confidence"]) == (
                best.top[0][0],
                np.float32(best.confidence),
            )


def test_a_segment_without_sound_does_not_count_and_a_track_of_none_is_listed(tracks, evaluated, local_ray, tmp_path):
    root = Location(str(tmp_path))
    silence = np.zeros((2, 187, 96), np.float16)
    changed = [t | {"mel": np.concatenate([t["mel"], silence])} for t in tracks]
    silent = tracks[4] | {"track_id": "silent", "mel": silence, "split": "test"}
    write_mels([*changed, silent], root / "mels")
    write_model([*tracks, silent], root / "model")
    plain, result = evaluated[0], evaluate(root / "model", root / "mels", root / "out", EvaluationOptions())
    assert (result["without_sound"], result["n_tracks"]) == (["silent"], plain["n_tracks"] + 1)
    assert result["tasks"] == plain["tasks"]
    (row,) = pq.read_table(f"{tmp_path}/out/predictions.parquet", filters=[("track_id", "==", "silent")]).to_pylist()
    assert (row["artist"], row["artist_predicted"], row["embedding"], row["n_segments"]) == (ARTISTS[0], None, None, 0)
    assert (
        "Without sound, so that no score counts them: 1 track (silent)"
        in (tmp_path / "out" / "report.html").read_text()
    )


def test_the_report_needs_no_other_file(evaluated):
    page = (evaluated[1] / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:image/png)""", page)
    assert "stranger" in page
    assert "<h2>Training</h2>" in page


def test_the_splits_are_those_of_the_artifact(tracks):
    table = pa.Table.from_pylist([{k: v for k, v in t.items() if k != "mel"} for t in tracks])
    splits = pa.array([t["split"] for t in tracks])
    counts = {
        on: len(_labelled_in_split(table, splits, ["artist", "language"], on))
        for on in ("train", "validation", "test", "all")
    }
    assert counts == {"train": 18, "validation": 6, "test": 7, "all": 32}
    assert len(_labelled_in_split(table, splits, ["language"], "test")) == 6


def test_a_model_of_one_task_on_s3_gives_the_same_scores(tracks, evaluated, local_ray, bucket):
    root = Location(bucket + "/evaluation")
    write_mels(tracks, root / "mels", files=1)
    artifact = artifacts.load_artifact(write_model(tracks, root / "both"))
    artist_only = replace(
        artifact, model=drop_head(artifact.model, "language"), vocabularies={"artist": Vocabulary(ARTISTS)}
    )
    artifacts.save_artifact(artist_only, artifacts.load_splits(root / "both"), root / "model")
    on_s3, on_disk = evaluate(root / "model", root / "mels", root / "out", EvaluationOptions()), evaluated[0]
    assert json.loads((root / "out" / "metrics.json").read_bytes()) == on_s3
    assert (root / "out" / "report.html").exists()
    assert list(on_s3["tasks"]) == ["artist"]
    for level in ("tracks", "segments"):
        for key in ("top_1", "nll"):
            expected = on_disk["tasks"]["artist"][level][key]
            assert on_s3["tasks"]["artist"][level][key] == pytest.approx(expected, abs=1e-5)


def test_wrong_arguments_are_refused_before_ray_starts(tracks, place, tmp_path, monkeypatch):
    def no_work(**_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("mtl_core.pipelines.workers.cluster.connected", no_work)
    here, out = Location(str(tmp_path)), Location(str(tmp_path / "out"))
    good = {"model": place / "model", "mels": place / "mels", "out": out, "options": EvaluationOptions()}
    other = write_mels(tracks, here / "other", front_end=FrontEnd(segments_per_excerpt=2))
    spread = write_mels(tracks, here / "spread", front_end=FrontEnd(sampling="spread", segments=32))
    unlabelled = write_mels([t | {"artist": None, "language": None} for t in tracks], here / "unlabelled")
    empty = tmp_path / "empty"
    empty.mkdir()
    for wrong, message in [
        ({"options": EvaluationOptions(on="tset")}, "'tset'.*train, validation, test, new, all"),
        ({"options": EvaluationOptions(resamples=-1)}, "resamples.*-1"),
        ({"model": here / "nowhere"}, "nowhere is not a model artifact"),
        ({"model": place / "mels"}, "is not a model artifact"),
        ({"mels": here / "nowhere"}, "nowhere"),
        ({"mels": Location(str(empty))}, "empty"),
        ({"mels": other}, "another front end.*: segments_per_excerpt 2, not 20$"),
        ({"mels": spread}, "another front end.*: sampling spread, not paper$"),
        ({"mels": unlabelled}, "no track of .*'test'"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            evaluate(**(good | wrong))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
