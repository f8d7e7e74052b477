"""The tables at scale, without decoding: python bench/bench_tables.py [MILLIONS [FOLDER [STAGE …]]]

Makes a manifest and a tags table of MILLIONS million tracks (default 1), as a first night would have left them. Then
measures each stage in a process of its own: wall seconds, CPU seconds, and the peak of resident memory (which includes
the pages of mapped files). A FOLDER is kept and used again; a temporary one is deleted. The stages change the table.

"clustered" replaces 10,000 tracks that follow each other. "scattered" replaces 10,000 that are spread evenly over the
catalogue, so that every file has some.

One million takes about 36 s, ten million 4 minutes and 12 GB of disk.
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
from mtl_core.storage.parquet import conform
from mtl_core.tables import commit, delta, maintenance, planning
from mtl_core.tables.data_files import ROWS_PER_GROUP, active_files, write_files

NIGHT = 10_000
OLD, NEW = "a" * 64, "b" * 64  # model_ids
_TRACK = (
    "SELECT format('label-{:03}/artist-{:06}/album-{:07}/{:09}.flac', i // 50000, i // 100, i // 12, i) AS track_id,"
    " '/mnt/the-catalogue/masters/' || track_id AS uri, md5(i::VARCHAR) AS content_id"
)


def tag_rows(
    start: int, end: int, step: int = 1, model_id: str = OLD, run_id: str = "night-0", trunk_id: str | None = None
) -> Iterator[pa.Table]:
    """Made-up tags of the catalogue's tracks start, start + step, … below end."""
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
    for first in range(start, end, step * n):
        ids = duckdb.sql(f"{_TRACK} FROM range({first}, {min(end, first + step * n)}, {step}) r(i)").to_arrow_table()
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
            "trunk_id": pa.repeat(pa.scalar(trunk_id, pa.string()), rows),
        }
        columns |= {name: ids[name] for name in ids.column_names}
        yield conform(pa.table(columns), TAGS)


def make(folder: Location, n: int) -> None:
    """Write the manifest, and the table as a first night leaves it."""
    make_manifest(folder / "manifest.parquet", n)
    commit_rows(folder, tag_rows(0, n), run_id="night-0")


def make_manifest(path: Location, n: int, n_changed: int = NIGHT) -> None:
    """Write a manifest of n tracks, of which `n_changed` have other contents than the tracks of `tag_rows`."""
    Path(path.path).parent.mkdir(parents=True, exist_ok=True)
    which = f"{n_changed} > 0 AND i % {n // max(1, n_changed)} = 7"
    changed = f"CASE WHEN {which} THEN 'changed' || i ELSE content_id END AS content_id"
    duckdb.sql(
        f"COPY (SELECT track_id, uri, {changed}, 40000000 + i AS size_bytes, 'an artist' AS artist, 'xx' AS language,"
        f" 'an album' AS album FROM ({_TRACK.replace('SELECT', 'SELECT i,')} FROM range({n}) r(i))) TO '{path}'"
        " (FORMAT parquet, COMPRESSION zstd)"
    )


def commit_rows(root: Location, rows: Iterator[pa.Table], run_id: str) -> None:
    """Write rows of tags and commit them, without the files of shards."""
    commit.commit_run(root, write_run(root, rows, run_id), lambda: None)


def write_run(root: Location, rows: Iterator[pa.Table], run_id: str) -> commit.VerifiedRun:
    """Write rows of tags as data files, as if verified."""
    ids: list[pa.Array] = []

    def with_ids_noted() -> Iterator[pa.Table]:
        for table in rows:
            ids.extend(table["track_id"].chunks)
            yield table

    files = write_files(with_ids_noted(), root / "tags", run_id, TAGS)
    return commit.VerifiedRun(
        run_id=run_id,
        model_id=NEW,
        tagged=pa.table({"track_id": pa.chunked_array(ids, pa.string())}),
        tags=files,
        failures=FAILURES.empty_table(),
    )


def plan(root: Location, n: int) -> str:
    """Plan a night of which all but NIGHT tracks are tagged."""
    rows = manifest.scan(root / "manifest.parquet")
    planned = planning.plan_tracks(rows, root, OLD, retry_failed=False)
    assert len(planned) == NIGHT
    return f"{n:,} manifest rows against {n:,} tagged: {len(planned):,} open"


def forecast(root: Location, n: int) -> str:
    """What `--plan-only` reads for a new model, which is to tag all tracks again."""
    rows = manifest.scan(root / "manifest.parquet")
    planned = planning.plan_tracks(rows, root, NEW, retry_failed=False)
    in_table, _ = planning.find_embeddings(planned, root, trunk_id="another", model_id=NEW)
    reasons = planning.summarise(planned, root, NEW)
    assert sum(tracks for tracks, _, _ in reasons.values()) == n and not len(in_table)
    return ", ".join(f"{tracks:,} {reason}" for reason, (tracks, _, _) in reasons.items())


def first_night(root: Location, n: int) -> str:
    """Plan all tracks, freeze the plan, and read it back."""
    rows = manifest.scan(root / "manifest.parquet")
    start = time.monotonic()
    planned = planning.plan_tracks(rows, root / "empty", OLD, retry_failed=False)
    planned_s, start = time.monotonic() - start, time.monotonic()
    folder = root / "frozen"
    frozen = work_plan.write_plan(
        planned, folder, run_id="r", tracks_per_shard=work_plan.MAX_TRACKS_PER_SHARD, parameters={}
    )
    frozen_s, start = time.monotonic() - start, time.monotonic()
    assert len(work_plan.read_columns(frozen, ["track_id"])) == n
    return f"all {n:,} open: planned {planned_s:.1f} s, frozen {frozen_s:.1f} s, read {time.monotonic() - start:.1f} s"


def finish_night(root: Location, rows: pa.Table, run_id: str) -> str:
    """Do what a driver does after the work of a night: merge the shards' files, then commit."""
    staged = []
    for number, start in enumerate(range(0, len(rows), work_plan.MAX_TRACKS_PER_SHARD)):
        file = root / "_run" / run_id / f"{number}.parquet"
        shard_rows = rows.slice(start, work_plan.MAX_TRACKS_PER_SHARD)
        buffer = pa.BufferOutputStream()
        pq.write_table(shard_rows, buffer)
        file.write_bytes(memoryview(buffer.getvalue()))
        staged.append((file, len(shard_rows)))
    start_s = time.monotonic()
    planned = rows.select(["track_id"])
    run = commit.verify_and_merge(staged, planned, FAILURES.empty_table(), root, run_id=run_id, model_id=OLD)
    merged_s = time.monotonic() - start_s
    return f"merged {len(staged)} shards {merged_s:.1f} s, {commit_rewritten(root, run)}"


def commit_rewritten(root: Location, run: commit.VerifiedRun) -> str:
    before = {file.path for file in files_of_tags(root)}
    start = time.monotonic()
    commit.commit_run(root, run, lambda: None)
    commit_s = time.monotonic() - start
    rewritten = sum(file.n_rows for file in files_of_tags(root) if file.path not in before) - len(run.tagged)
    return f"committed {commit_s:.1f} s, {rewritten:,} rows rewritten"


def files_of_tags(root: Location) -> list:
    table = delta.open_table(root, "tags")
    return [] if table is None else active_files(table)


def new_tracks(root: Location, n: int) -> str:
    return finish_night(root, pa.concat_tables(tag_rows(n, n + NIGHT)), f"new-{time.time_ns()}")


def clustered(root: Location, n: int) -> str:
    return finish_night(root, pa.concat_tables(tag_rows(n // 3, n // 3 + NIGHT)), f"clustered-{time.time_ns()}")


def scattered(root: Location, n: int) -> str:
    return finish_night(root, pa.concat_tables(tag_rows(0, n, n // NIGHT)), f"scattered-{time.time_ns()}")


def retag(root: Location, n: int) -> str:
    """Replace all tags by those of a new model, but for the first 1 % of the tracks, which left the manifest."""
    start = time.monotonic()
    run = write_run(root, tag_rows(n // 100, n, 1, NEW), f"retag-{time.time_ns()}")
    written_s = time.monotonic() - start
    carried = sum(file.n_rows for file in files_of_tags(root)) - len(run.tagged)
    return f"wrote {written_s:.1f} s, {commit_rewritten(root, run)}, at least {carried:,} carried over"


def compact(root: Location, n: int) -> str:
    """Compact the table after 20 nights of NIGHT new tracks."""
    for night in range(20):
        commit_rows(
            root, tag_rows(2 * n + night * NIGHT, 2 * n + (night + 1) * NIGHT), f"small-{night}-{time.time_ns()}"
        )
    start = time.monotonic()
    changes = maintenance.compact(root, lambda: None)
    return f"{changes['tags']}, {time.monotonic() - start:.1f} s of it"


def clean(root: Location, n: int) -> str:
    return str(maintenance.clean(root, keep_days=0, check_lease=lambda: None)["tags"])


STAGES: dict[str, Callable[[Location, int], str]] = {
    stage.__name__: stage
    for stage in (plan, forecast, first_night, new_tracks, clustered, scattered, retag, compact, clean)
}


def measure(stage: str, folder: str, n: int) -> None:
    """Run one stage in this process and print its figures as a line of JSON."""
    start = time.monotonic()
    result = "made"
    if stage == "make":
        make(Location(folder), n)
    else:
        result = STAGES[stage](Location(folder), n)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    figures = {"stage": stage, "tracks": n, "wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu_s, 1)}
    print(json.dumps(figures | {"peak_mib": usage.ru_maxrss // 1024, "result": result}), flush=True)


def main(millions: float = 1, folder: str = "", *stages: str) -> None:
    n = int(float(millions) * 1e6)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = folder or temporary
        make_first = [] if (Path(place) / "tags").exists() else ["make"]
        for stage in [*make_first, *(stages or STAGES)]:
            subprocess.run([sys.executable, __file__, "--stage", stage, place, str(n)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
