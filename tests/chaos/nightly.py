"""What the chaos tests share: a catalogue of tiny tracks in two states, the job as a process, and what must be true.

Between the first night and the second most tracks change, some good ones turn bad, some bad ones good, some leave the
manifest and some are new, so that a commit adds, supersedes and clears rows of both tables.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from builders.catalogue import write_audio
from builders.models import save, untrained_artifact

from mtl_core.audio.front_end import FrontEnd
from mtl_core.inference.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage import lease
from mtl_core.storage.location import Location
from mtl_core.tables import delta

HERE = Path(__file__).parent
JOB = HERE.parents[1] / "jobs" / "tag_catalogue.py"
RATE_HZ = 16_000
COUNTING = "counting_decoder"


def write_track(at: Location, number: int, seconds: float = 0.2) -> None:
    """A short tone that no other number has."""
    t = np.arange(int(seconds * RATE_HZ))[:, None] / RATE_HZ
    write_audio(at, 0.3 * np.sin(2 * np.pi * (100 + 3 * number) * t), RATE_HZ)


def small_artifact() -> Artifact:
    """Random weights, one segment an excerpt."""
    return untrained_artifact(front_end=FrontEnd(segments_per_excerpt=1))


@dataclass(frozen=True)
class Nights:
    """A catalogue that one night has tagged and that has changed since; numbers of tracks as written.

    Args:
        root: folder of everything.
        good: ids that the second night must tag; bad: that it must fail; gone: that keep their tags.
        n_planned: tracks of the second night.
    """

    root: Path
    good: frozenset[str]
    bad: frozenset[str]
    gone: frozenset[str]
    n_planned: int

    def command(self, out: Path, *flags: str) -> list[str]:
        return [str(JOB), "--manifest", str(self.root / "second.parquet"), "--model", str(self.root / "model"),
                "--out", str(out), "--num-workers", "2", "--max-failed-share", "1", *flags]  # fmt: skip

    def out(self, name: str) -> Path:
        """The tables after the first night, to be tagged by the second."""
        return Path(shutil.copytree(self.root / "first night", self.root / name))


def two_nights(root: Path, n: int, env: dict[str, str] | None = None, decoder: str = COUNTING) -> Nights:
    """`n` tracks, of which 1 in 16 is bad; the first night is run.

    Of every 16 numbers: 0 bad both nights, 1 good then bad, 2 bad then good, 3 gone on the second night, 4 new on the
    second night, 5 unchanged, the others changed.
    """
    place = Location(str(root))
    kinds: dict[int, list[str]] = {kind: [] for kind in range(16)}
    for number in range(n):
        kinds[number % 16].append(f"{number:05}.wav")
    for number in range(n):
        kind, at = number % 16, place / "catalogue" / f"{number:05}.wav"
        if kind in (0, 2):
            at.write_bytes(b"no music %d" % number)
        elif kind != 4:
            write_track(at, number)
    build_manifest(place / "catalogue", None, place / "first.parquet")
    save(small_artifact(), place / "model")
    first = ["--manifest", str(root / "first.parquet"), "--model", str(root / "model"), "--out",
             str(root / "first night"), "--num-workers", "2", "--max-failed-share", "1"]  # fmt: skip
    ended = run("never", "driver", [str(JOB), *first], env, decoder=decoder)
    assert ended.returncode == 0, ended.stderr
    for number in range(n):
        kind, at = number % 16, place / "catalogue" / f"{number:05}.wav"
        if kind == 1:
            at.write_bytes(b"no music any more %d" % number)
        elif kind == 3:
            at.delete()
        elif kind != 5:
            if kind != 0:
                write_track(at, number + 1)
            else:
                at.write_bytes(b"still no music %d" % number)
    build_manifest(place / "catalogue", None, place / "second.parquet")
    (root / "decoded.log").unlink(missing_ok=True)
    bad, gone = frozenset(kinds[0] + kinds[1]), frozenset(kinds[3])
    good = frozenset(name for names in kinds.values() for name in names) - bad - gone
    return Nights(root=root, good=good, bad=bad, gone=gone, n_planned=len(good) + len(bad) - len(kinds[5]))


def run(
    point: str,
    how: str,
    command: list[str],
    env: dict[str, str] | None = None,
    timeout_s: float = 180,
    decoder: str = COUNTING,
) -> subprocess.CompletedProcess[str]:
    """The job as a process of its own session, killed at `point` (see killed_job.py)."""
    process = start(point, how, command, env, decoder)
    said, error = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(command, process.returncode, said, error)


def start(
    point: str, how: str, command: list[str], env: dict[str, str] | None = None, decoder: str = COUNTING
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "killed_job.py"), point, how, decoder, *command],
        env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "RAY_USAGE_STATS_ENABLED": "0"} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def rows(out: Path | Location, name: str) -> list[dict]:
    """The rows of a table, by track_id."""
    table = delta.open_table(Location(str(out)), name)
    assert table is not None
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["track_id"])


def assert_exact(nights: Nights, out: Path) -> None:
    """Every track once, where it belongs, of the state it is in now; nothing unfinished is left."""
    tags, failures = rows(out, "tags"), rows(out, "failures")
    ids = [row["track_id"] for row in tags]
    assert len(ids) == len(set(ids)), "no track is doubled"
    assert set(ids) == nights.good | nights.gone, "none is lost, none of the failed ones is tagged"
    failed = [row["track_id"] for row in failures]
    assert len(failed) == len(set(failed)) and set(failed) == nights.bad
    now = pq.read_table(nights.root / "second.parquet").to_pylist()
    content = {row["track_id"]: row["content_id"] for row in now}
    for row in tags + failures:
        assert row["track_id"] in nights.gone or row["content_id"] == content[row["track_id"]]
    assert not [path for path in (out / "_run").rglob("*") if path.is_file()], "nothing unfinished is left"
    assert not (out / lease.LEASE_FILE).exists()


def strip(found: list[dict]) -> list[dict]:
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in ("run_id", "tagged_at", "failed_at")} for row in found]


def decoded(nights: Nights) -> Counter[str]:
    """How often each track was decoded since the first night."""
    log = nights.root / "decoded.log"
    return Counter(log.read_text().split()) if log.exists() else Counter()


def done_shards(out: Path) -> int:
    """Marks of the unfinished run."""
    return len(list((out / "_run").glob("*/done-*")))


def wait_for(true, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
