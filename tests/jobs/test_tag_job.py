"""The tagging job as a command: its exit status, its summary, and the export of tags as plain Parquet."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.catalogue import BAD, write_catalogue
from builders.models import save

from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
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
        return int(ended.value.code or 0), capsys.readouterr().out

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
