"""What a night would do: how many tracks and why, and what they cost. Nothing is written."""

import sys
from pathlib import Path

import pytest
from builders.models import save
from tables.nights import a_failure, a_tag, manifest, night

from mtl_core.dataset import manifest as manifests
from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.jobs import tag_catalogue as job
from mtl_core.pipelines.forecast import CPU_S_PER_TRACK, describe, forecast
from mtl_core.pipelines.tag_catalogue import TaggingOptions
from mtl_core.storage.location import Location
from mtl_core.tables import planning


@pytest.fixture
def at(tmp_path: Path, untrained: Artifact) -> Location:
    """A model, and a manifest of the tracks a to g with the content "c"."""
    at = Location(str(tmp_path))
    save(untrained, at / "model")
    manifests.write(manifest("abcdefg"), at / "manifest.parquet")
    return at


def look(at: Location, **options: object):
    return forecast(at / "manifest.parquet", at / "model", at / "out", TaggingOptions(**options))


def files(at: Location) -> list[str]:
    return [path for path, _ in at.walk()]


def test_the_first_night_has_only_new_tracks(at: Location) -> None:
    before = files(at)
    found = look(at)
    assert (found.in_manifest, found.planned, found.reasons) == (7, 7, {"new": (7, 0, 0.0)})
    assert (found.cpu_s_per_track, found.learnt_from) == (CPU_S_PER_TRACK, [])
    assert found.cpu_hours == pytest.approx(7 * CPU_S_PER_TRACK / 3600)
    assert look(at, limit=3).planned == 3
    assert files(at) == before
    with pytest.raises(InputError, match="nothing is there"):
        forecast(at / "gone.parquet", at / "model", at / "out", TaggingOptions())


def test_each_track_has_a_reason_and_an_earlier_run_tells_cost_and_hours(at: Location, untrained: Artifact) -> None:
    model = artifacts.model_id(untrained)
    tagged = [
        a_tag("a", model=model),  # done
        a_tag("b", model="other") | {"duration_s": 1800.0},
        a_tag("c", model=model, content="old") | {"duration_s": 3600.0},
    ]
    failed = [
        a_failure("d", model=model, permanent=False),
        a_failure("e", model=model),  # done: it is permanent
        a_failure("f", model="other"),
    ]
    night(at / "out", "1", tagged, failed, model=model)
    record = {"run_id": "run-1", "source": "audio", "planned": 6, "cpu_s_per_track": 0.5}
    (at / "out" / "runs" / "run-1.json").write_json(record)
    before = files(at)
    found = look(at)
    assert found.reasons == {
        "failed before": (1, 0, 0.0),
        "new": (1, 0, 0.0),
        "of another model": (2, 1, 0.5),
        "of other content": (1, 1, 1.0),
    }
    assert (found.planned, found.cpu_s_per_track, found.learnt_from) == (5, 0.5, ["run-1"])
    assert look(at, retry_failed=True).reasons["failed before"] == (2, 0, 0.0)
    assert files(at) == before
    text = describe(found)
    assert text.startswith("5 of 7 tracks of the manifest would be tagged\n  1 failed before\n  1 new\n")
    assert "  2 of another model, 0.5 hours of audio in 1 of them" in text
    assert text.endswith("0.500 CPU seconds a track that is read, as run run-1")


def test_a_retry_of_few_tracks_is_no_measure_of_the_cost(at: Location) -> None:
    for run, planned, cpu_s in (("run-1", 5_000, 9.0), ("run-2", 990, 0.1), ("run-3", 9, 0.2), ("run-4", 1, 20.0)):
        record = {"run_id": run, "source": "audio", "planned": planned, "cpu_s_per_track": cpu_s}
        (at / "out" / "runs" / f"{run}.json").write_json(record)
    (at / "out" / "runs" / "run-5.json").write_json({"run_id": "run-5", "source": "audio", "planned": 3})
    found = look(at)
    assert found.learnt_from == ["run-4", "run-3", "run-2"]
    assert found.cpu_s_per_track == pytest.approx((20 + 1.8 + 99) / 1_000)


def test_tracks_whose_embedding_is_in_the_table_cost_next_to_nothing(
    at: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "find_embeddings", lambda tracks, *_, **__: (tracks.slice(0, 6), tracks.slice(6)))
    found = look(at)
    assert found.from_table == 6
    assert found.cpu_hours == pytest.approx((CPU_S_PER_TRACK + 6 * 0.0003) / 3600)


def test_the_job_prints_it(at: Location, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--manifest", f"{at}/manifest.parquet", "--model", f"{at}/model", "--out", f"{at}/out", "--plan-only"]
    monkeypatch.setattr(sys, "argv", ["tag_catalogue", *flags])
    with pytest.raises(SystemExit) as ended:
        job.cli.main(job.main, job.Options)
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("7 of 7 tracks of the manifest would be tagged\n  7 new\nabout 0.00 CPU")
    assert not (at / "out").exists()
