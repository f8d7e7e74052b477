"""The batch class beside the job on the same tracks: python bench/bench_batch_class.py [N [REPEATS [FOLDER]]]

`tag_catalogue` and `examples/tag_in_own_pipeline.py` (TagTracks) tag the same N files (default 200), and a few of them.
The difference of the two wall clocks gives tracks a second without start-up. They take turns, REPEATS times (default
3); the rate is of the medians. The files are copies of the mp3 and ogg files of 120 s or more in FOLDER (default: the
real songs beside the checkout), else of generated songs. Then the rows are compared: labels, confidences, embeddings.

Prints both rates, their ratio and the largest differences; writes bench-run/batch_class.json. Ends with status 1 where
a label differs, or the batch class is more than 15 % slower.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from process_tree import adopt_orphans, run

ROOT = Path(__file__).parents[1]
SONGS = ROOT.parent / "shared" / "audio" / "songs"
FEW = 32
MAX_SLOWDOWN = 0.15


def command(way: str, manifest: Path, model: Path, out: Path) -> list[str]:
    if way == "job":
        flags = ["--manifest", str(manifest), "--model", str(model), "--out", str(out)]
        return [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), *flags]
    return [sys.executable, str(ROOT / "examples" / "tag_in_own_pipeline.py"), str(manifest), str(model), str(out)]


def rows(way: str, out: Path) -> pa.Table:
    table = DeltaTable(str(out / "tags")).to_pyarrow_table() if way == "job" else pq.read_table(out)
    return table.sort_by("track_id")


def differences(job: pa.Table, batch_class: pa.Table) -> dict[str, float]:
    """Rows whose labels differ, and the largest differences of the numbers."""
    if job["track_id"].to_pylist() != batch_class["track_id"].to_pylist():
        raise SystemExit("the two tagged different tracks")
    labels = [table.select(["artist", "language"]).to_pylist() for table in (job, batch_class)]
    numbers = ("artist_confidence", "language_confidence", "embedding")
    return {"labels": sum(a != b for a, b in zip(*labels, strict=True))} | {
        name: float(np.abs(np.array(job[name].to_pylist()) - np.array(batch_class[name].to_pylist())).max())
        for name in numbers
    }


def main(n: int = 200, repeats: int = 3, folder: Path = SONGS) -> None:
    adopt_orphans()
    walls_s: dict[tuple[str, int], list[float]] = {}
    outs: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), str(FEW), str(n)]
        subprocess.run(inputs, check=True)
        for repeat, files, way in itertools.product(range(repeats), (FEW, n), ("job", "batch class")):
            out = outs[way] = place / f"{way}-{files}-{repeat}"
            spent = run(command(way, place / f"tracks-{files}.parquet", place / "best", out), PYTHONPATH=str(ROOT))
            walls_s.setdefault((way, files), []).append(spent.wall_s)
            print(f"{repeat + 1}/{repeats} {way:12} {files:4} files {spent.wall_s:7.1f} s wall", flush=True)
        different = differences(*(rows(way, outs[way]) for way in ("job", "batch class")))
    median_s = {key: statistics.median(values) for key, values in walls_s.items()}
    rate = {way: (n - FEW) / (median_s[way, n] - median_s[way, FEW]) for way in ("job", "batch class")}
    ratio = rate["batch class"] / rate["job"]
    for way, tracks_per_s in rate.items():
        print(f"{way:12} {tracks_per_s:6.2f} tracks/s, start-up excluded")
    print(f"batch class / job: {ratio:.3f}; rows that differ: {different}")
    result = {"files": n, "tracks_per_s": rate, "ratio": ratio, "differences": different}
    (ROOT / "bench-run").mkdir(exist_ok=True)
    (ROOT / "bench-run" / "batch_class.json").write_text(json.dumps(result, indent=1))
    if different["labels"] or ratio < 1 - MAX_SLOWDOWN:
        sys.exit(1)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *(Path(value) for value in sys.argv[3:4]))
