"""A takedown is killed at every step. Each table is as before or as after, and the same command finishes it."""

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.stored_texts import places_of
from builders.takedowns import IDS, committed, ids, names, rows, track, unfinished
from nightly import HERE, run
from points import (
    ADD_FORGOTTEN,
    COMMIT_REMOVAL,
    DELETE_FILE,
    FORGETTING,
    PRUNING,
    PURGING,
    REMOVING,
)

from mtl_core.schema import MANIFEST
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import conform

JOB = HERE.parents[1] / "jobs" / "maintain_tables.py"
GONE = (3, 22, 35)
OLD = {"tags": names(*range(30)), "failures": names(*range(30, 40))}
NEW = {name: ids_of_table - names(*GONE) for name, ids_of_table in OLD.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the commands are given, and the tables of `make_tables` in `out`."""
    make_tables(Location(str(tmp_path / "out")), tmp_path)
    return tmp_path


def make_tables(out: Location, folder: Path) -> None:
    """Two nights, an unfinished run and a record that hold ids; in `folder` a list of tracks and a manifest."""
    committed(out, "1", np.arange(25), np.arange(25, 40))
    committed(out, "2", np.arange(20, 30), np.arange(0))
    unfinished(out, "3", [3, 50], [60])
    (out / "runs" / "4.json").write_json({"slowest": track(22)})
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids(*GONE)["track_id"].to_pylist()))
    kept = [track(number) for number in range(100) if number not in GONE]
    manifest = pa.table({"track_id": kept, "uri": [f"/{name}" for name in kept]})
    pq.write_table(conform(manifest, MANIFEST), folder / "manifest.parquet")


def command(folder: Path, how: str, *flags: str, out: Location | None = None) -> list[str]:
    given = {"--forget": "ids.txt", "--prune-to": "manifest.parquet"}[how]
    return [str(JOB), "--out", str(out or folder / "out"), how, str(folder / given), "--yes", *flags]


def kill_at_each(folder: Path, points: list[str], how: str, out: Location | None = None) -> None:
    """Run the same command once for each point, killed there, then to its end; check the tables after each."""
    out = out or Location(str(folder / "out"))
    same_command = command(folder, how, "--purge-now", out=out)
    is_new = {"tags": False, "failures": False}
    for point in points:
        start_s = time.monotonic()
        ended = run(point, "driver", same_command)
        assert ended.returncode == -signal.SIGKILL, f"{point}: {ended.returncode} {ended.stdout} {ended.stderr}"
        for name in OLD:
            now = rows(out, name)
            assert now in ([NEW[name]] if is_new[name] else [OLD[name], NEW[name]]), point
            is_new[name] = now == NEW[name]
        print(
            f"{time.monotonic() - start_s:5.1f} s  new: {[name for name in OLD if is_new[name]]}  {point}", flush=True
        )
    ended = run("never", "driver", same_command)
    assert ended.returncode == 0, ended.stderr
    assert "time travel ends here" in ended.stdout
    assert {name: rows(out, name) for name in NEW} == NEW
    gone = {name.rpartition("/")[2] for name in names(*GONE)}
    assert not [place for place, texts in places_of(out, IDS).items() if texts & gone]
    assert not [path for path, _ in out.walk() if path.startswith("_run/") or path == "_lease.json"]


@pytest.mark.slow
def test_forgetting_killed_at_every_step_is_finished_by_the_same_command(folder: Path) -> None:
    kill_at_each(folder, [*FORGETTING, *REMOVING, *PURGING], "--forget")


@pytest.mark.slow
def test_pruning_killed_at_every_step_is_finished_by_the_same_command(folder: Path) -> None:
    kill_at_each(folder, [*PRUNING, *REMOVING, *PURGING], "--prune-to")


@pytest.mark.parametrize("root", ["disk", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_takedown_survives_three_kills(root: str, tmp_path: Path) -> None:
    """Before the rows are removed, between the two tables, and in the middle of deleting a log."""
    points = [f"{ADD_FORGOTTEN}:exit", f"{COMMIT_REMOVAL}:exit", f"{DELETE_FILE}@/failures/_delta_log/:exit:2"]
    out = Location(root)
    make_tables(out, tmp_path)
    kill_at_each(tmp_path, points, "--forget", out)


def test_the_job_says_what_it_would_do_and_what_it_did(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*.parquet")}
    ended = run("never", "driver", command(folder, "--forget", "--dry-run"))
    lines = [f"failures\t{track(35)}", f"tags\t{track(3)}", f"tags\t{track(22)}"]
    assert (ended.returncode, ended.stdout.splitlines()) == (0, lines)
    assert ended.stderr == "would be removed: 1 rows of failures, 2 rows of tags, 7.5% of all\n"
    assert {path: path.read_bytes() for path in (folder / "out").rglob("*.parquet")} == before
    unconfirmed = [flag for flag in command(folder, "--forget") if flag != "--yes"]
    ended = run("never", "driver", unconfirmed)
    assert ended.returncode == 2
    assert "3 of 40 rows would be removed, 7.5%: more than 5% needs --yes" in ended.stderr
    ended = run("never", "driver", command(folder, "--forget"))
    assert ended.stdout == "3 tracks are forgotten, 3 of them since now\nremoved: 1 rows of failures, 2 rows of tags\n"
    assert "the unfinished run 3 has removed tracks in its plan, and drops them" in ended.stderr
    shutil.copy(folder / "ids.txt", folder / "out" / "copy.txt")
    ended = run("never", "driver", command(folder, "--forget", "--purge-now"))
    assert "1 unfinished runs, 1 run records" in ended.stdout
    assert "copy.txt is not of this program and may hold ids: it stays" in ended.stderr
    allow = [str(JOB), "--out", str(folder / "out"), "--unforget", str(folder / "ids.txt")]
    assert run("never", "driver", allow).stdout == "3 of 3 tracks were forgotten; later nights may tag them again\n"
