"""What the chaos tests share: a catalogue of tiny tracks in two states, the job as a process, and what must hold.

Between the first night and the second, most tracks change, some good ones become bad, some bad ones good, some leave
the manifest and some are new. So the second commit adds, replaces and removes rows of both tables.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from builders.catalogue import write_audio
from builders.credentials import S3_KEYS
from builders.models import save, untrained_artifact

from mtl_core.audio.front_end import FrontEnd
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage import lease
from mtl_core.storage.location import Location
from mtl_core.tables import delta

HERE = Path(__file__).parent
JOB = HERE.parents[1] / "jobs" / "tag_catalogue.py"
RATE_HZ = 16_000
COUNTING = "counting_decoder"
RUN_FIELDS = ("run_id", "tagged_at", "failed_at", "first_run_id")  # of a row: they differ from run to run


def write_track(file: Location, number: int, seconds: float = 0.2) -> None:
    """Write a short tone; each number has a frequency of its own."""
    time_s = np.arange(int(seconds * RATE_HZ))[:, None] / RATE_HZ
    write_audio(file, 0.3 * np.sin(2 * np.pi * (100 + 3 * number) * time_s), RATE_HZ)


def small_artifact() -> Artifact:
    """An untrained model that uses one segment of each excerpt."""
    return untrained_artifact(front_end=FrontEnd(segments_per_excerpt=1))


@dataclass(frozen=True)
class Nights:
    """A catalogue that one night has tagged and that has changed since.

    Args:
        root: folder of the catalogue, the manifests, the model and the tables.
        good: track_ids that the second night must tag.
        bad: track_ids that must fail in the second night.
        gone: track_ids that left the manifest and keep their tags.
        n_planned: number of tracks that the second night plans.
    """

    root: Path
    good: frozenset[str]
    bad: frozenset[str]
    gone: frozenset[str]
    n_planned: int

    def command(self, out: Path, *flags: str, model: str = "model", manifest: str = "second") -> list[str]:
        return [str(JOB), "--manifest", str(self.root / f"{manifest}.parquet"), "--model", str(self.root / model),
                "--out", str(out), "--num-workers", "2", "--max-failed-share", "1", *flags]  # fmt: skip

    def out(self, name: str) -> Path:
        """A copy of the tables after the first night, for a second night."""
        return Path(shutil.copytree(self.root / "first night", self.root / name))


def two_nights(root: Path, n: int, env: dict[str, str] | None = None, decoder: str = COUNTING) -> Nights:
    """Write `n` tracks, run the first night, and change the catalogue.

    Of every 16 tracks: 0 is bad in both nights, 1 good then bad, 2 bad then good, 3 is gone in the second night, 4 is
    new in the second night, 5 is unchanged, and the others change.
    """
    location = Location(str(root))
    kinds = {kind: [f"{number:05}.wav" for number in range(kind, n, 16)] for kind in range(16)}
    for number in range(n):
        kind, file = number % 16, location / "catalogue" / f"{number:05}.wav"
        if kind in (0, 2):
            file.write_bytes(b"no music %d" % number)
        elif kind != 4:
            write_track(file, number)
    build_manifest(location / "catalogue", None, location / "first.parquet")
    save(small_artifact(), location / "model")
    first = ["--manifest", str(root / "first.parquet"), "--model", str(root / "model"), "--out",
             str(root / "first night"), "--num-workers", "2", "--max-failed-share", "1"]  # fmt: skip
    ended = run("never", "driver", [str(JOB), *first], env, decoder=decoder)
    assert ended.returncode == 0, ended.stderr
    for number in range(n):
        kind, file = number % 16, location / "catalogue" / f"{number:05}.wav"
        if kind == 1:
            file.write_bytes(b"no music any more %d" % number)
        elif kind == 3:
            file.delete()
        elif kind == 0:
            file.write_bytes(b"still no music %d" % number)
        elif kind != 5:
            write_track(file, number + 1)
    build_manifest(location / "catalogue", None, location / "second.parquet")
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
    """Run the job as a process in a session of its own, interrupted at `point` (see killed_job.py)."""
    process = start(point, how, command, env, decoder)
    stdout, stderr = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def start(
    point: str, how: str, command: list[str], env: dict[str, str] | None = None, decoder: str = COUNTING
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "killed_job.py"), point, how, decoder, *command],
        env={**S3_KEYS, **os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "RAY_USAGE_STATS_ENABLED": "0"}
        | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(session: int) -> list[str]:
    """The command lines of the processes of a session that still run."""
    alive = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    alive.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
    return alive


def rows(out: Path | Location, name: str) -> list[dict]:
    """The rows of a table, sorted by track_id."""
    table = delta.open_table(Location(str(out)), name)
    assert table is not None
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["track_id"])


def assert_exact(nights: Nights, out: Path) -> None:
    """Check that each track has one row, in the right table and of its present content, and no run is unfinished."""
    tags, failures = rows(out, "tags"), rows(out, "failures")
    ids = [row["track_id"] for row in tags]
    assert len(ids) == len(set(ids)), "a track has two rows"
    assert set(ids) == nights.good | nights.gone, "a track is lost, or tagged although it failed"
    failed_ids = [row["track_id"] for row in failures]
    assert len(failed_ids) == len(set(failed_ids)) and set(failed_ids) == nights.bad
    manifest = pq.read_table(nights.root / "second.parquet").to_pylist()
    content_ids = {row["track_id"]: row["content_id"] for row in manifest}
    for row in tags + failures:
        assert row["track_id"] in nights.gone or row["content_id"] == content_ids[row["track_id"]]
    assert not [path for path in (out / "_run").rglob("*") if path.is_file()], "an unfinished run is left"
    assert not (out / lease.LEASE_FILE).exists()


def without_run_fields(rows: list[dict]) -> list[dict]:
    """Rows without the fields that differ from run to run."""
    return [{k: v for k, v in row.items() if k not in RUN_FIELDS} for row in rows]


def decode_counts(nights: Nights) -> Counter[str]:
    """How often each track was decoded after the first night."""
    log = nights.root / "decoded.log"
    return Counter(log.read_text().split()) if log.exists() else Counter()


def count_done_shards(out: Path) -> int:
    """The number of complete shards of the unfinished run."""
    return len(list((out / "_run").glob("*/done-*")))


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not true after {timeout_s} s"
        time.sleep(0.05)
