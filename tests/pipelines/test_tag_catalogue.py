"""Tagging: each track is tagged or failed, with the features of training, on a disk and on S3."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.catalogue import BAD, write_catalogue
from builders.models import save

from mtl_core.audio.front_end import FrontEnd, log_mel_segments, read_recording
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.storage.location import Location
from mtl_core.tables import delta, forgotten

N_GOOD = 12


def rows(root: Location, name: str) -> list[dict]:
    table = delta.open_table(root, name)
    assert table is not None
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["track_id"])


@pytest.mark.usefixtures("local_ray")
def test_every_track_is_tagged_or_failed_and_a_disk_and_s3_give_the_same_tags(
    tmp_path: Path, bucket: str, untrained: Artifact
) -> None:
    on_disk, on_s3 = (tag_a_small_catalogue(Location(root), untrained) for root in (f"{tmp_path}/some place", bucket))
    for disk, s3 in zip(on_disk, on_s3, strict=True):
        assert [disk[k] for k in ("track_id", "artist", "language", "n_segments")] == [
            s3[k] for k in ("track_id", "artist", "language", "n_segments")
        ]
        np.testing.assert_allclose(disk["embedding"], s3["embedding"], atol=1e-5)
        for task in ("artist", "language"):
            assert disk[f"{task}_confidence"] == pytest.approx(s3[f"{task}_confidence"], abs=1e-5)


def tag_a_small_catalogue(at: Location, untrained: Artifact) -> list[dict]:
    """Tag `N_GOOD` good files and the `BAD` ones twice, check both tables, and return the tags."""
    write_catalogue(at / "catalogue", N_GOOD)
    build_manifest(at / "catalogue", at / "catalogue" / "labels.csv", at / "manifest.parquet")
    out = at / "tagged"
    tagged = tag_catalogue(at / "manifest.parquet", save(untrained, at / "model"), out, TaggingOptions())
    tags, failures = rows(out, "tags"), rows(out, "failures")
    assert len(tags) == N_GOOD and {row["track_id"] for row in tags} == {
        f"good/{i:03}.{('wav', 'flac', 'ogg', 'mp3')[i % 4]}" for i in range(N_GOOD)
    }
    assert {row["track_id"]: (row["stage"], row["error"]) for row in failures} == BAD
    assert all(row["attempts"] == 1 and row["permanent"] and row["message"] for row in failures)
    for row in tags:
        assert row["uri"] == f"{at.uri}/catalogue/{row['track_id']}" and row["content_id"]
        assert row["duration_s"] == pytest.approx(4.0, abs=0.1) and row["n_segments"] == 1
        assert row["model_id"] == artifact.model_id(untrained)
        assert len(row["embedding"]) == 96 and len(row["artist_top"]) == 5 and len(row["language_top"]) == 3
        probabilities = [top["probability"] for top in row["artist_top"]]
        assert probabilities == sorted(probabilities, reverse=True) and probabilities[0] == row["artist_confidence"]
        assert row["artist"] == row["artist_top"][0]["label"]
        assert sum(top["probability"] for top in row["language_top"]) == pytest.approx(1, abs=1e-5)
    (run,) = tagged.runs
    assert (run["planned"], run["tagged"], run["failed"], run["already_done"]) == (N_GOOD + 4, N_GOOD, 4, 0)
    n_stored = sum(entry["size"] for path, entry in (at / "catalogue").walk() if path != "labels.csv")
    assert run["fetched_bytes"] == (n_stored if at.on_s3 else 0), (
        "each object is downloaded once; a file stays where it is"
    )
    assert json.loads((out / "runs" / f"{run['run_id']}.json").read_bytes()) == run
    assert tagged.verdict is not None and not tagged.verdict.accepted
    assert (tagged.verdict.failed, tagged.verdict.tried) == (4, N_GOOD + 4)
    assert not list((out / "_run").walk()), "a finished run leaves no plan"
    assert (run["night"]["tagged"], run["night"]["shares"]["no segment has sound"]) == (N_GOOD, 0)
    assert sum(n for name, n in run["night"]["shares"].items() if name.startswith("artist is")) == N_GOOD
    assert run["night"]["means"]["duration_s"]["mean"] == pytest.approx(4.0, abs=0.1)
    assert run["drift"] == []

    again = tag_catalogue(at / "manifest.parquet", at / "model", out, TaggingOptions())
    assert (again.runs, again.already_done, again.verdict) == ([], N_GOOD + 4, tagged.verdict)
    assert rows(out, "tags") == tags
    return tags


@pytest.mark.usefixtures("local_ray")
def test_a_tag_is_computed_from_the_features_of_training(tmp_path: Path, untrained: Artifact) -> None:
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 1, seconds=130.0)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    tag_catalogue(at / "m.parquet", save(untrained, at / "model"), at / "out", TaggingOptions())
    (row,) = rows(at / "out", "tags")
    import torch

    front_end = untrained.front_end
    with open(tmp_path / "catalogue/good/000.wav", "rb") as file:
        mel_STF = log_mel_segments(read_recording(file, front_end), front_end).mel_STF
    assert row["n_segments"] == len(mel_STF) == 40
    with torch.no_grad():
        X_SE = untrained.model.embed(torch.from_numpy(mel_STF)[:, None])
        logits_SC = untrained.model.heads(X_SE)["artist"].log_softmax(1)
    expected_C = logits_SC.mean(0).softmax(0).numpy()
    assert row["artist_confidence"] == pytest.approx(expected_C.max(), abs=1e-5)
    np.testing.assert_allclose(row["embedding"], X_SE.mean(0).numpy(), atol=1e-4)


@pytest.mark.usefixtures("local_ray")
def test_a_limit_leaves_the_other_tracks_for_the_next_run(tmp_path: Path, untrained: Artifact) -> None:
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 6)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    model = save(untrained, at / "model")
    first = tag_catalogue(at / "m.parquet", model, at / "out", TaggingOptions(limit=6))
    assert [run["planned"] for run in first.runs] == [6]
    assert max(row["track_id"] for row in rows(at / "out", "tags")) < "good/002"
    second = tag_catalogue(at / "m.parquet", model, at / "out", TaggingOptions())
    assert [run["planned"] for run in second.runs] == [4] and second.already_done == 6
    third = tag_catalogue(at / "m.parquet", model, at / "out", TaggingOptions(retry_failed=True))
    assert [run["planned"] for run in third.runs] == [4], "the failed tracks are planned again"
    assert {row["attempts"] for row in rows(at / "out", "failures")} == {2}


@pytest.mark.usefixtures("local_ray")
def test_a_night_skips_and_counts_forgotten_tracks_until_they_are_allowed_again(
    tmp_path: Path, untrained: Artifact
) -> None:
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 3)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    model, out = save(untrained, at / "model"), at / "out"
    listed = pa.table({"track_id": ["good/001.flac", sorted(BAD)[0], "unknown"]})
    forgotten.add(out, listed, lambda: None)
    first = tag_catalogue(at / "m.parquet", model, out, TaggingOptions())
    assert [(run["planned"], run["forgotten"], run["dropped"]) for run in first.runs] == [(5, 2, 0)]
    assert (first.already_done, first.forgotten) == (0, 2)
    again = tag_catalogue(at / "m.parquet", model, out, TaggingOptions(retry_failed=True))
    assert [(run["planned"], run["already_done"], run["forgotten"]) for run in again.runs] == [(3, 2, 2)]
    unchanged = tag_catalogue(at / "m.parquet", model, out, TaggingOptions())
    assert (unchanged.runs, unchanged.already_done, unchanged.forgotten) == ([], 5, 2)
    forgotten.remove(out, listed, lambda: None)
    back = tag_catalogue(at / "m.parquet", model, out, TaggingOptions())
    assert [(run["planned"], run["tagged"], run["failed"], run["forgotten"]) for run in back.runs] == [(2, 1, 1, 0)]


@pytest.mark.usefixtures("local_ray")
def test_a_model_of_one_task_leaves_the_other_null(tmp_path: Path, untrained: Artifact) -> None:
    from mtl_core.model.cnn import drop_head

    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 2)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    alone = Artifact(
        model=drop_head(untrained.model, "language"),
        front_end=untrained.front_end,
        vocabularies={"artist": untrained.vocabularies["artist"]},
    )
    tag_catalogue(at / "m.parquet", save(alone, at / "model"), at / "out", TaggingOptions())
    for row in rows(at / "out", "tags"):
        assert row["language"] is row["language_confidence"] is row["language_top"] is None and row["artist"]


def test_what_is_not_a_manifest_or_a_model_is_refused_before_any_work(tmp_path: Path, untrained: Artifact) -> None:
    at = Location(str(tmp_path))
    model = save(untrained, at / "model")
    pq.write_table(pa.table({"track_id": ["a"]}), tmp_path / "m.parquet")
    for manifest, folder, message in (
        (at / "gone.parquet", model, "nothing is there"),
        (at / "m.parquet", model, "no column 'uri'"),
        (at / "m.parquet", at / "gone", "model"),
        (at / "m.parquet", at, "model"),
    ):
        with pytest.raises(InputError, match=message):
            tag_catalogue(manifest, folder, at / "out", TaggingOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("local_ray")
def test_a_missing_gpu_is_refused(tmp_path: Path, untrained: Artifact) -> None:
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 1)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    with pytest.raises(InputError, match="1 workers of 1 GPU each: the cluster has room for 0 "):
        tag_catalogue(at / "m.parquet", save(untrained, at / "model"), at / "out", TaggingOptions(use_gpu=True))


@pytest.mark.usefixtures("local_ray")
def test_a_night_reads_as_many_segments_as_its_flags_say(tmp_path: Path, untrained: Artifact) -> None:
    """The rule of this model stops after the first round."""
    stop = Stop(odds_from=0, named_from=-1e30, null_below=-1e30)
    rounds = tuple(Round(segments=n, numbers=Aggregation(), stop=dict.fromkeys(TASKS, stop)) for n in (4, 8))
    spread = replace(
        untrained, front_end=FrontEnd(sampling="spread", segments=16), aggregation=Aggregation(rounds=rounds)
    )
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 2, seconds=52.0)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    model = save(spread, at / "model")
    for name, expected, options in (
        ("rule", 4, TaggingOptions()),
        ("never", 16, TaggingOptions(exit="never")),
    ):
        (run,) = tag_catalogue(at / "m.parquet", model, at / name, options).runs
        assert [row["n_segments"] for row in rows(at / name, "tags")] == [expected] * 2
        assert (run["asked"]["exit"], run["asked"]["segments"]) == (options.exit, options.segments)
