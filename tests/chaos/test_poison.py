"""Tracks that crash the decoder, make it hang, or use all memory: only the track itself fails, within its limits."""

import subprocess
import time
from pathlib import Path

import pytest
from builders.models import LABELS, save, untrained_artifact
from clusters import head
from counting_decoder import DIES_LATER
from nightly import JOB, rows, run, small_artifact, write_track

from mtl_core.audio.front_end import FrontEnd
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.inference.tagging.early_exit import NEVER
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location

LIMIT_S = 5.0
POISON = {"a": (b"segfault", "crashed"), "b": (b"hang    ", "timed_out"), "c": (b"allocate", "out_of_memory")}


@pytest.mark.slow
def test_three_poisoned_tracks_fail_and_no_other(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    for number in range(200):
        write_track(at / "catalogue" / f"{number:03}.wav", number, seconds=1.0)
    build_manifest(at / "catalogue", None, at / "good.parquet")
    for number, (name, (content, _)) in enumerate(POISON.items()):
        (at / "catalogue" / f"{60 * number:03}-{name}.wav").write_bytes(content)
    build_manifest(at / "catalogue", None, at / "all.parquet")
    save(small_artifact(), at / "model")
    wall_s = {}
    with head(num_cpus=2) as env:
        for name in ("good", "all"):
            command = [str(JOB), "--manifest", f"{at}/{name}.parquet", "--model", f"{at}/model", "--num-workers", "2",
                       "--out", f"{at}/{name}", f"--decode-limit-s={LIMIT_S}", "--decode-memory-mib=1024"]  # fmt: skip
            start_s = time.monotonic()
            ended = run("never", "driver", command, env)
            wall_s[name] = time.monotonic() - start_s
            assert ended.returncode == 0, ended.stderr
        assert len(rows(at / "good", "tags")) == len(rows(at / "all", "tags")) == 200
        errors = {row["track_id"][4]: (row["stage"], row["error"]) for row in rows(at / "all", "failures")}
        assert errors == {name: ("decode", error) for name, (_, error) in POISON.items()}
        print(f"200 tracks: {wall_s['good']:.1f} s; with three poisoned tracks: {wall_s['all']:.1f} s")
        assert wall_s["all"] <= 2 * wall_s["good"] + LIMIT_S
    assert_no_decoder_is_left()


@pytest.mark.slow
def test_a_decoder_that_dies_between_two_rounds_costs_its_track_alone(tmp_path: Path) -> None:
    """Tracks of 12 segments, of which a first round of 4 decides nothing. Each tenth ends its decoder after it."""
    at = Location(str(tmp_path))
    for number in range(60):
        write_track(at / "catalogue" / f"{number:03}.wav", number, seconds=36.0)
        if number % 10 == 5:
            file = at / "catalogue" / f"{number:03}.wav"
            file.write_bytes(file.read_bytes() + DIES_LATER)
    build_manifest(at / "catalogue", None, at / "all.parquet")
    first = Round(
        segments=4,
        numbers=Aggregation(),
        stop=dict.fromkeys(LABELS, Stop(odds_from=NEVER, named_from=NEVER, null_below=-NEVER)),
    )
    model = untrained_artifact(
        front_end=FrontEnd(sampling="spread", segments=32), aggregation=Aggregation(rounds=(first,))
    )
    save(model, at / "model")
    with head(num_cpus=2) as env:
        command = [str(JOB), "--manifest", f"{at}/all.parquet", "--model", f"{at}/model", "--num-workers", "2",
                   "--out", f"{at}/out", "--max-failed-share", "1"]  # fmt: skip
        ended = run("never", "driver", command, env)
        assert ended.returncode == 0, ended.stderr
    tags, failures = rows(at / "out", "tags"), rows(at / "out", "failures")
    assert [row["track_id"] for row in failures] == [f"{number:03}.wav" for number in range(5, 60, 10)]
    assert {(row["stage"], row["error"]) for row in failures} == {("decode", "crashed")}
    assert len(tags) == 54 and {row["n_segments"] for row in tags} == {12}, "the first round decided nothing"
    assert_no_decoder_is_left()


def assert_no_decoder_is_left() -> None:
    listing = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    decoders = [line.split() for line in listing.splitlines() if "-m counting_decoder" in line]
    assert all(parent == arguments[-2] for parent, *arguments in decoders), "a decoder has outlived its worker"
