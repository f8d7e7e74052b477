"""Extraction: what the mels contain, and that a run that was killed ends with the mels of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.catalogue import BAD, write_catalogue

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.errors import InputError
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.extract_mels import ExtractionOptions, extract_mels
from mtl_core.schema import FAILURES, FRONT_END_HASH, MELS
from mtl_core.storage.location import Location

REPOSITORY = Path(__file__).parents[2]


def write_manifest(root: Location, n_good: int, seconds: float = 4.0) -> Location:
    write_catalogue(root / "catalogue", n_good, seconds)
    build_manifest(root / "catalogue", root / "catalogue" / "labels.csv", root / "manifest.parquet")
    return root / "manifest.parquet"


def rows(mels: Location) -> pa.Table:
    """All rows, sorted by track and segment."""
    tables = [pq.read_table(pa.BufferReader(file.read_bytes())) for file in mels.files(".parquet")]
    table = pa.concat_tables(tables)
    return table.take(pa.array(np.lexsort([table["segment"].to_numpy(), table["track_id"].to_numpy()])))


@pytest.mark.usefixtures("local_ray")
def test_a_row_is_a_segment(root: str) -> None:
    folder = Location(root)
    manifest = write_manifest(folder, n_good=5, seconds=7.0)
    summary = extract_mels(manifest, folder / "mels", ExtractionOptions())
    assert "5 of 9 tracks, 10 segments" in summary and "decode/not_audio 2" in summary
    table = rows(folder / "mels")
    assert table.schema.names == [*MELS.names[:-1], "mood", "mel"]
    assert table.schema.field("mel").type == MELS.field("mel").type
    assert table.schema.metadata[FRONT_END_HASH].decode() == FrontEnd(sampling="spread", segments=32).hash()
    assert table["segment"].to_pylist() == [0, 1] * 5 and table["start_s"].to_pylist() == [0.0, 3.0] * 5
    artists = [None, None, "artist 1", "artist 1", None, None, "artist 0", "artist 0", None, None]
    assert table["artist"].to_pylist() == artists
    assert table["mood"].to_pylist()[2:4] == ["calm", "calm"]
    mel = table["mel"].combine_chunks().to_numpy_ndarray()
    assert mel.shape == (10, 187, 96) and mel.dtype == np.float16 and mel.max() > 1
    failures = pq.read_table(pa.BufferReader((folder / "mels/_failures/failures.parquet").read_bytes()))
    assert failures.schema == FAILURES
    assert {r["track_id"]: (r["stage"], r["error"]) for r in failures.to_pylist()} == BAD
    assert open_mel_dataset(folder / "mels").tracks["segments"].to_pylist() == [2] * 5
    assert extract_mels(manifest, folder / "mels", ExtractionOptions()).startswith("nothing to do")


@pytest.mark.usefixtures("local_ray")
def test_other_options_and_a_missing_file_are_reasons_to_extract_again(tmp_path: Path) -> None:
    folder = Location(str(tmp_path))
    manifest = write_manifest(folder, n_good=5, seconds=7.0)
    summary = extract_mels(manifest, folder / "mels", ExtractionOptions(max_duration_s=6))
    assert "0 of 9 tracks" in summary and "decode/too_large 5" in summary
    assert "5 of 9 tracks" in extract_mels(manifest, folder / "mels", ExtractionOptions())
    table = rows(folder / "mels")
    (folder / "mels").files(".parquet")[0].delete()
    extract_mels(manifest, folder / "mels", ExtractionOptions())
    assert rows(folder / "mels").equals(table)
    extract_mels(manifest, folder / "mels", ExtractionOptions(draws=2, seed=3))
    drawn = rows(folder / "mels")
    assert len(drawn) == 20, "two draws for each segment; the mels of the fixed grid are deleted"
    assert len(set(drawn["start_s"].to_pylist())) > 10
    assert [path for path, _ in (folder / "mels" / "_runs").walk() if "/" in path] == []


@pytest.mark.usefixtures("local_ray")
def test_the_same_command_finishes_a_run_that_crashed_at_its_very_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Location(str(tmp_path))
    manifest = write_manifest(folder, n_good=2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            "mtl_core.storage.work_plan.delete_plan", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        extract_mels(manifest, folder / "mels", ExtractionOptions())
    with pytest.raises(InputError, match="has not ended"):
        open_mel_dataset(folder / "mels")
    extract_mels(manifest, folder / "mels", ExtractionOptions())
    assert open_mel_dataset(folder / "mels").tracks.num_rows == 2


@pytest.mark.usefixtures("local_ray")
def test_carried_columns_may_have_any_name(tmp_path: Path) -> None:
    folder = Location(str(tmp_path))
    write_catalogue(folder / "catalogue", 2)
    names = "attempts,split,segments,segment_count,mel_first"
    lines = [f"path,{names}", "good/000.wav,1,train,x,y,z", "bad/text.mp3,2,test,x,y,z"]
    (tmp_path / "catalogue" / "labels.csv").write_text("\n".join(lines))
    manifest_at = folder / "manifest.parquet"
    build_manifest(folder / "catalogue", folder / "catalogue" / "labels.csv", manifest_at)
    nested = pq.read_table(manifest_at.path).append_column("moods", pa.array([["calm"]] * 6))
    pq.write_table(nested, manifest_at.path)
    extract_mels(manifest_at, folder / "mels", ExtractionOptions())
    tracks = open_mel_dataset(folder / "mels").tracks
    assert tracks["segments"].to_pylist() == [1, 1]
    assert tracks["split"].to_pylist() == ["train", None] and "moods" not in tracks.column_names


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("victim", ["driver", "group"])
def test_a_killed_extraction_ends_with_the_mels_of_an_undisturbed_one(tmp_path: Path, victim: str) -> None:
    folder = Location(str(tmp_path))
    manifest = write_manifest(folder, n_good=28, seconds=60.0)
    command = [sys.executable, "jobs/extract_mels.py", "--manifest", manifest.uri, "--out"]

    killed = subprocess.Popen(
        [*command, f"{folder}/killed"], cwd=REPOSITORY, stderr=subprocess.PIPE, start_new_session=True
    )
    runs = tmp_path / "killed" / "_runs"
    while len(list(runs.glob("*/done-*"))) < 2:
        assert killed.poll() is None, "the job ended before it could be killed"
        time.sleep(0.02)
    if victim == "driver":
        killed.kill()
    else:
        os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (plan,) = runs.glob("*/plan.json")
    n_shards = -(-32 // json.loads(plan.read_text())["tracks_per_shard"])
    done_shards = {file.stem.removeprefix("done-") for file in runs.glob("*/done-*")}
    assert 2 <= len(done_shards) < n_shards
    files = [file for file in (tmp_path / "killed").glob("mels-*") if file.stem[-6:] in done_shards]
    assert files, "only a shard without a good track has no file"
    times_ns = [file.stat().st_mtime_ns for file in files]

    ended = subprocess.run([*command, f"{folder}/killed"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "unfinished run" in ended.stderr
    assert [file.stat().st_mtime_ns for file in files] == times_ns, "a shard that was done is not repeated"
    extract_mels(manifest, folder / "whole", ExtractionOptions())
    assert rows(folder / "killed").equals(rows(folder / "whole"))
    assert (tmp_path / "killed/_failures/failures.parquet").exists()
