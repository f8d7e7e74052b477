"""Each program in examples/ runs, on the data of version 0.1."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.schema import TAGS
from mtl_core.storage.location import Location

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "tests" / "fixtures" / "version_0_1"
SONG = DATA / "catalogue/audio/rosa-glenn/restless-island/01-open-wave.ogg"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example with arguments; gives what it prints."""

    def run(example: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [example, *map(str, arguments)])
        runpy.run_path(str(REPOSITORY / "examples" / f"{example}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_files_are_tagged_in_python(run: Callable[..., str]) -> None:
    song, missing = run("tag_in_python", DATA / "best", SONG, "missing.mp3").splitlines()
    assert song == f"{SONG}: Rosa Glenn (0.81), qqt"
    assert missing.startswith("missing.mp3: fetch not_found: ")


@pytest.mark.usefixtures("local_ray")
def test_tracks_are_tagged_in_a_users_own_pipeline(run: Callable[..., str], tmp_path: Path) -> None:
    manifest = Location(str(tmp_path / "manifest.parquet"))
    build_manifest(Location(str(DATA / "catalogue")), None, manifest)
    run("tag_in_own_pipeline", manifest, DATA / "best", tmp_path / "tags")
    rows = pq.read_table(tmp_path / "tags").sort_by("track_id").to_pylist()
    tags_of_the_job = {row["track_id"]: row for row in pq.read_table(DATA / "tags_best.parquet").to_pylist()}
    assert len(rows) == 10 and list(rows[0]) == [*TAGS.names, "stage", "error", "message"]
    for row in rows:
        if row["track_id"].startswith("bad/"):
            assert (row["stage"], row["error"], row["artist"]) == ("decode", "not_audio", None)
        else:
            assert row["artist"] == tags_of_the_job[row["track_id"]]["artist"] and row["stage"] is None
            assert row["embedding"] == pytest.approx(tags_of_the_job[row["track_id"]]["embedding"], abs=1e-5)


def test_tags_are_read_with_duckdb(run: Callable[..., str]) -> None:
    printed = run("read_tags_with_duckdb", DATA / "tagged")
    assert "confidence" in printed and "Juno Linden" in printed
