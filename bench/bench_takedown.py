"""The cost of a takedown, without decoding: python bench/bench_takedown.py [MILLIONS [FOLDER]]

Makes a manifest and a tags table of MILLIONS million tracks (default 1), as a first night would have left them, and a
list of 1,000 tracks that are spread evenly, so that every file of the table has some. Then measures in a process of its
own each: how long the list takes with `--dry-run`, `--forget`, the same with `--purge-now`, the planning of the next
night, which skips the forgotten tracks, and `--prune-to` of a manifest without another 1,000. "neighbours" are 1,000
tracks that follow each other. "look_for" is the checker of the tests, which decodes all that lies under OUT: how many
of the 1,000 tracks it finds, and where. Figures as of bench_tables.py.
"""

import contextlib
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from bench_tables import OLD, make

from mtl_core.dataset import manifest
from mtl_core.jobs.maintain_tables import Options
from mtl_core.jobs.maintain_tables import main as maintain
from mtl_core.storage.location import Location
from mtl_core.tables import forgotten, planning

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders.stored_texts import places_of

N_GONE = 1_000


def run_job(**options: object) -> str:
    """Run `maintain_tables` in this process; returns what it printed, without the rows of a dry run."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        maintain(Options(**options))
    return "; ".join(line for line in printed.getvalue().splitlines() if "\t" not in line)


def prepare(folder: Path, n: int) -> str:
    """Write the tables, the lists of tracks, and a manifest without some."""
    make(Location(f"{folder}/out"), n)
    (folder / "out" / "manifest.parquet").rename(folder / "manifest.parquet")
    rows = f"SELECT *, row_number() OVER (ORDER BY track_id) - 1 AS i FROM '{folder}/manifest.parquet'"
    step = n // N_GONE
    lists = {"spread": f"i % {step} = 0", "neighbours": f"i >= {n // 2} AND i < {n // 2 + N_GONE}"}
    for name, where in lists.items():
        duckdb.sql(f"COPY (SELECT track_id FROM ({rows}) WHERE {where}) TO '{folder}/{name}.parquet'")
    kept = f"SELECT * EXCLUDE (i) FROM ({rows}) WHERE i % {step} != {step // 2}"
    duckdb.sql(f"COPY ({kept}) TO '{folder}/kept.parquet' (FORMAT parquet, COMPRESSION zstd)")
    return "made"


def dry_run(folder: Path, n: int) -> str:
    return run_job(out=f"{folder}/out", forget=f"{folder}/spread.parquet", dry_run=True)


def forget_neighbours(folder: Path, n: int) -> str:
    return run_job(out=f"{folder}/out", forget=f"{folder}/neighbours.parquet")


def forget(folder: Path, n: int) -> str:
    return run_job(out=f"{folder}/out", forget=f"{folder}/spread.parquet")


def purge_now(folder: Path, n: int) -> str:
    return run_job(out=f"{folder}/out", forget=f"{folder}/spread.parquet", purge_now=True)


def plan(folder: Path, n: int) -> str:
    """Plan the next night; the time for the forgotten tracks is part of it."""
    start = time.monotonic()
    rows, root = manifest.scan(Location(f"{folder}/manifest.parquet")), Location(f"{folder}/out")
    skipped = forgotten.find(rows, root)
    found_s = time.monotonic() - start
    planned = planning.plan_tracks(rows, root, OLD, retry_failed=False, skipped=skipped)
    return f"{len(skipped):,} forgotten, found in {found_s:.1f} s with the check of the manifest; {len(planned):,} open"


def prune(folder: Path, n: int) -> str:
    return run_job(out=f"{folder}/out", prune_to=f"{folder}/kept.parquet")


def look_for(folder: Path, n: int) -> str:
    """Search everything under OUT for the tracks of the list."""
    ids = duckdb.sql(f"SELECT track_id FROM '{folder}/spread.parquet'").fetchall()
    gone = {track_id for (track_id,) in ids}
    pattern = re.sub(r"\d+", r"\\d+", re.escape(min(gone)))  # fits all ids of the table, which differ in their numbers
    found = {place: len(texts & gone) for place, texts in places_of(Location(f"{folder}/out"), pattern).items()}
    return json.dumps({place: count for place, count in sorted(found.items()) if count})


STAGES: dict[str, Callable[[Path, int], str]] = {
    stage.__name__: stage for stage in (prepare, dry_run, forget_neighbours, forget, look_for, purge_now, plan, prune)
}
ORDER = (
    "prepare",
    "look_for",
    "dry_run",
    "forget_neighbours",
    "forget",
    "look_for",
    "purge_now",
    "look_for",
    "plan",
    "prune",
)


def measure(stage: str, folder: str, n: int) -> None:
    """Run one stage in this process and print its figures as a line of JSON."""
    start = time.monotonic()
    result = STAGES[stage](Path(folder), n)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    figures = {"stage": stage, "tracks": n, "wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu_s, 1)}
    print(json.dumps(figures | {"peak_mib": usage.ru_maxrss // 1024, "result": result}), flush=True)


def main(millions: float = 1, folder: str = "") -> None:
    n = int(float(millions) * 1e6)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        for stage in ORDER:
            subprocess.run([sys.executable, __file__, "--stage", stage, folder or temporary, str(n)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
