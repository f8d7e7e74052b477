"""Tracks that crash, hang or eat memory: each costs itself, and no more time than its limit."""

import subprocess
import time
from pathlib import Path

import pytest
from builders.models import save
from clusters import head
from nightly import JOB, rows, run, small_artifact, write_track

from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location

LIMIT_S = 5.0
POISON = {"a": (b"segfault", "crashed"), "b": (b"hang    ", "timed_out"), "c": (b"allocate", "out_of_memory")}


@pytest.mark.slow
def test_three_poisoned_tracks_cost_themselves_alone(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    for number in range(200):
        write_track(at / "catalogue" / f"{number:03}.wav", number, seconds=1.0)
    build_manifest(at / "catalogue", None, at / "good.parquet")
    for number, (name, (what, _)) in enumerate(POISON.items()):
        (at / "catalogue" / f"{60 * number:03}-{name}.wav").write_bytes(what)
    build_manifest(at / "catalogue", None, at / "all.parquet")
    save(small_artifact(), at / "model")
    seconds = {}
    with head(num_cpus=2) as env:
        for name in ("good", "all"):
            command = [str(JOB), "--manifest", f"{at}/{name}.parquet", "--model", f"{at}/model", "--num-workers", "2",
                       "--out", f"{at}/{name}", f"--decode-limit-s={LIMIT_S}", "--decode-memory-mib=1024"]  # fmt: skip
            begun = time.monotonic()
            ended = run("never", "driver", command, env)
            seconds[name] = time.monotonic() - begun
            assert ended.returncode == 0, ended.stderr
        assert len(rows(at / "good", "tags")) == len(rows(at / "all", "tags")) == 200
        failed = {row["track_id"][4]: (row["stage"], row["error"]) for row in rows(at / "all", "failures")}
        assert failed == {name: ("decode", error) for name, (_, error) in POISON.items()}
        print(f"200 tracks: {seconds['good']:.1f} s; with three poisoned ones: {seconds['all']:.1f} s")
        assert seconds["all"] <= 2 * seconds["good"] + LIMIT_S
    listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    decoders = [line.split() for line in listed.splitlines() if "-m counting_decoder" in line]
    assert all(parent == arguments[-2] for parent, *arguments in decoders), "no decoder outlives the worker it names"
