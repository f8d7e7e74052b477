"""The tables at scale, decoding left out: python bench/bench_tables.py [MILLIONS [FOLDER [STAGE …]]]

Makes a manifest and a tags table of so many millions of tracks (default 1; 10 take some 12 GB of disk), as a first
night would have left them, and measures each stage in a process of its own: wall seconds, CPU seconds, and the peak of
the process's resident memory (which counts the pages of mapped files, too). FOLDER is kept and taken up again, a
temporary one is not. The stages change the table: "clustered" are 10,000 tracks that follow each other, "scattered"
are spread evenly over the catalogue, so that every file has some.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.dataset import manifest
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.tables import commit, delta, maintenance, planning
from mtl_core.tables.data_files import ROWS_PER_GROUP, active_files, write_files

NIGHT = 10_000
OLD, NEW = "a" * 64, "b" * 64  # model_ids
_TRACK = (
    "SELECT format('label-{:03}/artist-{:06}/album-{:07}/{:09}.flac', i // 50000, i // 100, i // 12, i) AS track_id,"
    " 's3://the-catalogue/masters/' || track_id AS uri, md5(i::VARCHAR) AS content_id"
)


def tag_rows(start: int, end: int, step: int = 1, model_id: str = OLD, run_id: str = "night-0") -> Iterator[pa.Table]:
    """Tags of the catalogue's tracks start, start + step, …"""
    random = np.random.default_rng(0)
    n = ROWS_PER_GROUP
    embedding = pa.ListArray.from_arrays(
        np.arange(0, 96 * n + 1, 96, np.int32), random.standard_normal(96 * n, np.float32)
    )
    label = pa.array([f"artist {i:03}" for i in range(5000)])
    probability = pa.array(random.random(5 * n, np.float32))
    labels = label.take(pa.array(random.integers(0, len(label), 5 * n)))
    top = pa.ListArray.from_arrays(
        np.arange(0, 5 * n + 1, 5, np.int32),
        pa.StructArray.from_arrays([labels, probability], ["label", "probability"]),
    )
    for at in range(start, end, step * n):
        ids = duckdb.sql(f"{_TRACK} FROM range({at}, {min(end, at + step * n)}, {step}) r(i)").to_arrow_table()
        rows = len(ids)
        columns = {
            "duration_s": pa.array(random.random(rows, np.float32) * 300),
            "n_segments": pa.array(np.full(rows, 40, np.int32)),
            "artist": label.take(pa.array(random.integers(0, len(label), rows))),
            "artist_confidence": probability[:rows],
            "artist_top": top[:rows],
            "language": label.take(pa.array(random.integers(0, 17, rows))),
            "language_confidence": probability[rows : 2 * rows],
            "language_top": top[:rows],
            "embedding": embedding[:rows],
            "model_id": pa.repeat(model_id, rows),
            "run_id": pa.repeat(run_id, rows),
            "tagged_at": pa.array(np.full(rows, time.time_ns() // 1000)).cast(pa.timestamp("us", tz="UTC")),
        }
        named = {name: ids[name] if name in ids.column_names else columns[name] for name in TAGS.names}
        yield pa.table({name: column.cast(TAGS.field(name).type) for name, column in named.items()}, schema=TAGS)


def make(folder: Location, n: int) -> None:
    """The manifest, and the table as a first night leaves it."""
    make_manifest(folder / "manifest.parquet", n)
    put(folder, live_rows=tag_rows(0, n), run_id="night-0")


def make_manifest(path: Location, n: int, n_changed: int = NIGHT) -> None:
    """Of its tracks, `n_changed` have changed since `tag_rows` made theirs."""
    Path(path.path).parent.mkdir(parents=True, exist_ok=True)
    which = f"{n_changed} > 0 AND i % {n // max(1, n_changed)} = 7"
    changed = f"CASE WHEN {which} THEN 'changed' || i ELSE content_id END AS content_id"
    duckdb.sql(
        f"COPY (SELECT track_id, uri, {changed}, 40000000 + i AS size_bytes, 'an artist' AS artist, 'xx' AS language,"
        f" 'an album' AS album FROM ({_TRACK.replace('SELECT', 'SELECT i,')} FROM range({n}) r(i))) TO '{path}'"
        " (FORMAT parquet, COMPRESSION zstd)"
    )


def put(root: Location, live_rows: Iterator[pa.Table], run_id: str) -> None:
    """Rows -> parts -> committed, without the files of shards."""
    outcome = outcome_of(root, live_rows, run_id)
    commit.commit_run(root, outcome, lambda: None)


def outcome_of(root: Location, rows: Iterator[pa.Table], run_id: str) -> commit.VerifiedRun:
    ids: list[pa.Array] = []

    def seen() -> Iterator[pa.Table]:
        for table in rows:
            ids.extend(table["track_id"].chunks)
            yield table

    parts = write_files(seen(), root / "tags", run_id, TAGS)
    failed = pa.chunked_array([], pa.string())
    return commit.VerifiedRun(
        run_id=run_id,
        model_id=NEW,
        tagged=pa.chunked_array(ids, pa.string()),
        failed=failed,
        tags=parts,
        failures=FAILURES.empty_table(),
    )


def plan(root: Location, n: int) -> str:
    rows = manifest.scan(root / "manifest.parquet")
    planned = planning.plan_tracks(rows, root, OLD, retry_failed=False)
    assert len(planned) == NIGHT
    return f"{n:,} manifest rows against {n:,} tagged: {len(planned):,} open"


def first_night(root: Location, n: int) -> str:
    rows = manifest.scan(root / "manifest.parquet")
    begun = time.monotonic()
    planned = planning.plan_tracks(rows, root / "empty", OLD, retry_failed=False)
    planned_s, begun = time.monotonic() - begun, time.monotonic()
    folder = root / "frozen"
    frozen = work_plan.write_plan(
        planned, folder, run_id="r", tracks_per_shard=work_plan.MAX_TRACKS_PER_SHARD, parameters={}
    )
    frozen_s, begun = time.monotonic() - begun, time.monotonic()
    assert len(work_plan.read_columns(frozen, ["track_id"])) == n
    return f"all {n:,} open: planned {planned_s:.1f} s, frozen {frozen_s:.1f} s, read {time.monotonic() - begun:.1f} s"


def a_night(root: Location, rows: pa.Table, run_id: str) -> str:
    """What a driver does after the work of a night: merge the shards' files, then commit."""
    staged = []
    for number in range(-(-len(rows) // work_plan.MAX_TRACKS_PER_SHARD)):
        file, some = (
            root / "_run" / run_id / f"{number}.parquet",
            rows.slice(number * work_plan.MAX_TRACKS_PER_SHARD, work_plan.MAX_TRACKS_PER_SHARD),
        )
        buffer = pa.BufferOutputStream()
        pq.write_table(some, buffer)
        file.write_bytes(memoryview(buffer.getvalue()))
        staged.append((file, len(some)))
    begun = time.monotonic()
    planned = rows.select(["track_id"])
    outcome = commit.verify_and_merge(staged, planned, FAILURES.empty_table(), root, run_id=run_id, model_id=OLD)
    merged_s = time.monotonic() - begun
    return f"merged {len(staged)} shards {merged_s:.1f} s, {committed(root, outcome)}"


def committed(root: Location, outcome: commit.VerifiedRun) -> str:
    before = {part.path for part in parts_of(root)}
    begun = time.monotonic()
    commit.commit_run(root, outcome, lambda: None)
    commit_s = time.monotonic() - begun
    rewritten = sum(part.n_rows for part in parts_of(root) if part.path not in before) - len(outcome.tagged)
    return f"committed {commit_s:.1f} s, {rewritten:,} rows rewritten"


def parts_of(root: Location) -> list:
    table = delta.open_table(root, "tags")
    return [] if table is None else active_files(table)


def new_tracks(root: Location, n: int) -> str:
    return a_night(root, pa.concat_tables(tag_rows(n, n + NIGHT)), f"new-{time.time_ns()}")


def clustered(root: Location, n: int) -> str:
    return a_night(root, pa.concat_tables(tag_rows(n // 3, n // 3 + NIGHT)), f"clustered-{time.time_ns()}")


def scattered(root: Location, n: int) -> str:
    return a_night(root, pa.concat_tables(tag_rows(0, n, n // NIGHT)), f"scattered-{time.time_ns()}")


def retag(root: Location, n: int) -> str:
    """A new model's tags of all but the first 1% of the tracks, which are gone from the manifest."""
    begun = time.monotonic()
    outcome = outcome_of(root, tag_rows(n // 100, n, 1, NEW), f"retag-{time.time_ns()}")
    written_s = time.monotonic() - begun
    carried = sum(part.n_rows for part in parts_of(root)) - len(outcome.tagged)
    return f"wrote {written_s:.1f} s, {committed(root, outcome)}, at least {carried:,} carried over"


def compact(root: Location, n: int) -> str:
    for night in range(20):
        put(root, tag_rows(2 * n + night * NIGHT, 2 * n + (night + 1) * NIGHT), f"small-{night}-{time.time_ns()}")
    begun = time.monotonic()
    changes = maintenance.compact(root, lambda: None)
    return f"{changes['tags']}, {time.monotonic() - begun:.1f} s of it"


def clean(root: Location, n: int) -> str:
    return str(maintenance.clean(root, keep_days=0, check_lease=lambda: None)["tags"])


STAGES: dict[str, Callable[[Location, int], str]] = {
    stage.__name__: stage for stage in (plan, first_night, new_tracks, clustered, scattered, retag, compact, clean)
}


def measured(stage: str, folder: str, n: int) -> None:
    begun = time.monotonic()
    told = "made" if stage == "make" else ""
    if stage == "make":
        make(Location(folder), n)
    else:
        told = STAGES[stage](Location(folder), n)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    figures = {"stage": stage, "tracks": n, "wall_s": round(time.monotonic() - begun, 1), "cpu_s": round(cpu_s, 1)}
    print(json.dumps(figures | {"peak_mib": usage.ru_maxrss // 1024, "told": told}), flush=True)


def main(millions: float = 1, folder: str = "", *stages: str) -> None:
    n = int(float(millions) * 1e6)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = folder or temporary
        first = [] if (Path(place) / "tags").exists() else ["make"]
        for stage in [*first, *(stages or STAGES)]:
            subprocess.run([sys.executable, __file__, "--stage", stage, place, str(n)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        measured(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
