"""The tagging job as a command: its exit status, its summary, and the export of tags as plain Parquet."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.catalogue import BAD, write_catalogue
from builders.models import save

from mtl_core import log
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.night import run_end
from mtl_core.storage.location import Location
from mtl_core.tables import delta

JOB = Path(__file__).parents[2] / "jobs" / "tag_catalogue.py"
N_GOOD = 6


@pytest.fixture
def run_job(local_ray: None, tmp_path: Path, untrained: Artifact, monkeypatch: pytest.MonkeyPatch, capsys):
    """Runs the job on a catalogue of `N_GOOD` good tracks and 4 bad ones; returns its status and standard output."""
    root = Location(str(tmp_path))
    write_catalogue(root / "catalogue", N_GOOD)
    build_manifest(root / "catalogue", None, root / "manifest.parquet")
    save(untrained, root / "model")
    monkeypatch.setattr(pa, "set_memory_pool", lambda pool: None)  # it would last for all tests of this process
    flags = ["--manifest", f"{root}/manifest.parquet", "--model", f"{root}/model", "--out", f"{root}/out"]

    def run(*more_flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(JOB), *flags, *more_flags])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOB), run_name="__main__")
        printed = capsys.readouterr()
        run.stderr = printed.err
        return int(ended.value.code or 0), printed.out

    return run


def test_too_many_failed_tracks_end_in_status_3_and_are_committed(run_job: Callable, tmp_path: Path) -> None:
    status, printed = run_job()  # 4 of 10 tracks fail; allowed is 5 %
    assert status == 3
    assert "10 planned = 6 tagged + 4 failed" in printed
    tags, failures = (delta.open_table(Location(f"{tmp_path}/out"), name) for name in ("tags", "failures"))
    assert len(tags.to_pyarrow_table()) == N_GOOD
    assert set(failures.to_pyarrow_table()["track_id"].to_pylist()) == set(BAD)
    status, printed = run_job()
    assert status == 3 and printed.startswith("nothing to do: all 10 tracks"), "a retry does not end the alarm"
    assert run_job("--accept-failures")[0] == 0 and run_job()[0] == 0, "a person does"


def test_as_json_the_log_tells_of_the_run_event_by_event(
    run_job: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_end, "MAX_FAILURES_LOGGED", 3)
    monkeypatch.setenv("MTL_LOG_FORMAT", "json")
    status, printed = run_job()
    log.configure("text")
    events = [json.loads(line) for line in run_job.stderr.splitlines()]
    assert status == 3 and "10 planned = 6 tagged + 4 failed" in printed, "the result is text"
    of = {name: [one for one in events if one["event"] == name] for name in {one["event"] for one in events}}
    (planned,), (commit,), (end,) = of["planned"], of["commit"], of["end"]
    assert (planned["tracks"], planned["source"], planned["done_before"]) == (10, "audio", 0)
    assert len(of["shard_done"]) == planned["shards"]
    assert [sum(one[name] for one in of["shard_done"]) for name in ("tagged", "failed")] == [6, 4]
    assert [(one["track_id"], one["stage"], one["error"]) for one in of["failure"]] == [
        (row["track_id"], row["stage"], row["error"])
        for row in delta.open_table(Location(f"{tmp_path}/out"), "failures").to_pyarrow_table()
        .sort_by("track_id").slice(0, 3).to_pylist()
    ]  # fmt: skip
    assert of["failures_left_out"][0]["count"] == 1
    assert (commit["tagged"], commit["failed"], end["exit_status"]) == (6, 4, 3)
    (record,) = (tmp_path / "out" / "runs").glob("[!_]*.json")
    assert {one["run_id"] for one in events} == {record.stem}
    order = [one["event"] for one in events if one["event"] not in ("progress", "output")]
    assert order == ["planned", *["shard_done"] * planned["shards"], *["failure"] * 3, "failures_left_out", "commit",
                     "verdict", "end"]  # fmt: skip


def test_the_export_holds_the_rows_of_the_tags(run_job: Callable, tmp_path: Path) -> None:
    export = tmp_path / "exports" / "tags.parquet"
    status, printed = run_job("--max-failed-share", "0.4", "--export-parquet", str(export))
    assert status == 0, "4 of 10 is not more than 0.4"
    assert f"6 rows of tags -> {export}" in printed
    exported = pq.read_table(export).sort_by("track_id")
    tags = delta.open_table(Location(f"{tmp_path}/out"), "tags").to_pyarrow_table().sort_by("track_id")
    assert exported.schema.names == tags.schema.names and exported.to_pylist() == tags.to_pylist()
    export.unlink()  # an unchanged night writes the export too
    assert run_job("--max-failed-share", "0.4", "--export-parquet", str(export))[0] == 0
    assert pq.read_table(export).sort_by("track_id").to_pylist() == tags.to_pylist()
