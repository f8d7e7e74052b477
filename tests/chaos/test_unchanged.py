"""A night in which nothing changed."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.models import save
from clusters import head
from nightly import JOB, run, small_artifact, two_nights

from mtl_core.inference.artifacts import artifact
from mtl_core.schema import TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import commit, delta

N = 100_000
NIGHTS = 200


@pytest.mark.slow
def test_an_unchanged_catalogue_takes_seconds(tmp_path: Path) -> None:
    """100,000 tagged tracks without audio files: the job decodes nothing and prints that nothing is to do."""
    root, model = Location(str(tmp_path)), small_artifact()
    save(model, root / "model")
    ids = pa.array([f"{number:06}.wav" for number in range(N)])
    manifest = {"track_id": ids, "uri": pa.array([f"/nowhere/{name}" for name in ids.to_pylist()]), "content_id": ids}
    pq.write_table(pa.table(manifest), tmp_path / "manifest.parquet")
    model_id = artifact.model_id(model)
    columns = {name: pa.nulls(N, TAGS.field(name).type) for name in TAGS.names} | manifest
    columns |= {"model_id": pa.repeat(model_id, N), "run_id": pa.repeat("first", N)}
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(np.zeros(96 * N, np.float32), 96).cast(
        TAGS.field("embedding").type
    )
    staged = root / "staged.parquet"
    pq.write_table(pa.table(columns, schema=TAGS), staged.path)
    planned, failures = pa.table({"track_id": ids}), delta.TABLE_SCHEMAS["failures"].empty_table()
    out = root / "out"
    night = commit.verify_and_merge([(staged, N)], planned, failures, out, run_id="first", model_id=model_id)
    commit.commit_run(out, night, lambda: None)
    command = [str(JOB), "--manifest", f"{root}/manifest.parquet", "--model", f"{root}/model", "--out", f"{out}"]
    with head(num_cpus=2) as env:
        for name, environment in (("its own Ray", {}), ("a running cluster", env)):
            start_s = time.monotonic()
            ended = run("never", "driver", command, environment)
            print(f"{N:,} unchanged tracks, {name}: {time.monotonic() - start_s:.1f} s: {ended.stdout.strip()}")
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.startswith("nothing to do: all 100,000 tracks")
    assert not (tmp_path / "out" / "_run").exists()


def files_of(out: Path) -> dict[Path, int]:
    """File -> when it was written, without the lock that each run touches."""
    files = (path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_two_hundred_unchanged_nights_write_nothing(tmp_path: Path) -> None:
    nights = two_nights(tmp_path, 48)
    out = nights.out("unchanged")
    first = run("never", "driver", nights.command(out))
    assert first.returncode == 0, first.stderr
    files = files_of(out)
    start_s = time.monotonic()
    for _ in range(NIGHTS):
        night = run("never", "driver", nights.command(out))
        assert night.returncode == 0 and night.stdout.startswith("nothing to do: "), night.stderr
    print(f"{NIGHTS} unchanged nights: {(time.monotonic() - start_s) / NIGHTS:.1f} s each")
    assert files_of(out) == files
