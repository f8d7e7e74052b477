"""Truths about extracted mels: what is in them, and that a killed run ends as if it had not been killed."""

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
from mtl_core.pipelines.extract_mels import Extraction, extract_mels
from mtl_core.schema import FAILURES, FRONT_END_HASH, MELS
from mtl_core.storage.location import Location

REPOSITORY = Path(__file__).parents[2]


def catalogue(root: Location, n_good: int, seconds: float = 4.0) -> Location:
    write_catalogue(root / "catalogue", n_good, seconds)
    build_manifest(root / "catalogue", root / "catalogue" / "labels.csv", root / "manifest.parquet")
    return root / "manifest.parquet"


def rows(mels: Location) -> pa.Table:
    """All rows, in a fixed order."""
    tables = [pq.read_table(pa.BufferReader(file.read_bytes())) for file in mels.files(".parquet")]
    table = pa.concat_tables(tables)
    return table.take(pa.array(np.lexsort([table["segment"].to_numpy(), table["track_id"].to_numpy()])))


@pytest.mark.usefixtures("local_ray")
def test_a_row_is_a_segment(root: str) -> None:
    at = Location(root)
    manifest = catalogue(at, n_good=5, seconds=7.0)
    said = extract_mels(manifest, at / "mels", Extraction())
    assert "5 of 9 tracks, 10 segments" in said and "decode/not_audio 2" in said
    table = rows(at / "mels")
    assert table.schema.names == [*MELS.names[:-1], "mood", "mel"]
    assert table.schema.field("mel").type == MELS.field("mel").type
    assert table.schema.metadata[FRONT_END_HASH].decode() == FrontEnd().hash()
    assert table["segment"].to_pylist() == [0, 1] * 5 and table["start_s"].to_pylist() == [0.0, 3.0] * 5
    assert table["artist"].to_pylist() == [
        None,
        None,
        "artist 1",
        "artist 1",
        None,
        None,
        "artist 0",
        "artist 0",
        None,
        None,
    ]
    assert table["mood"].to_pylist()[2:4] == ["calm", "calm"]
    mel = table["mel"].combine_chunks().to_numpy_ndarray()
    assert mel.shape == (10, 187, 96) and mel.dtype == np.float16 and mel.max() > 1
    failures = pq.read_table(pa.BufferReader((at / "mels/_failures/failures.parquet").read_bytes()))
    assert failures.schema == FAILURES
    assert {r["track_id"]: (r["stage"], r["error"]) for r in failures.to_pylist()} == BAD
    assert open_mel_dataset(at / "mels").tracks["segments"].to_pylist() == [2] * 5

    assert extract_mels(manifest, at / "mels", Extraction()).startswith("nothing to do")
    extract_mels(manifest, at / "mels", Extraction(draws=2, seed=3))
    drawn = rows(at / "mels")
    assert len(drawn) == 20, "two draws a slot; those of the fixed grid are gone"
    assert len(set(drawn["start_s"].to_pylist())) > 10
    assert [path for path, _ in (at / "mels" / "_runs").walk() if "/" in path] == []
    assert not extract_mels(manifest, at / "mels", Extraction()).startswith("nothing"), "others lie there now"
    assert rows(at / "mels").equals(table)
    (at / "mels").files(".parquet")[0].delete()
    assert not extract_mels(manifest, at / "mels", Extraction()).startswith("nothing"), "a file is gone"
    assert rows(at / "mels").equals(table)


@pytest.mark.usefixtures("local_ray")
def test_a_crash_at_the_very_end_is_mended_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Location(str(tmp_path))
    manifest = catalogue(at, n_good=2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            "mtl_core.storage.work_plan.delete_plan", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        extract_mels(manifest, at / "mels", Extraction())
    with pytest.raises(InputError, match="has not ended"):
        open_mel_dataset(at / "mels")
    extract_mels(manifest, at / "mels", Extraction())
    assert open_mel_dataset(at / "mels").tracks.num_rows == 2


@pytest.mark.usefixtures("local_ray")
def test_carried_columns_have_any_name(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    write_catalogue(at / "catalogue", 2)
    names = "attempts,split,segments,segment_count,mel_first"
    lines = [f"path,{names}", "good/000.wav,1,train,x,y,z", "bad/text.mp3,2,test,x,y,z"]
    (tmp_path / "catalogue" / "labels.csv").write_text("\n".join(lines))
    manifest_at = at / "manifest.parquet"
    build_manifest(at / "catalogue", at / "catalogue" / "labels.csv", manifest_at)
    nested = pq.read_table(manifest_at.path).append_column("moods", pa.array([["calm"]] * 6))
    pq.write_table(nested, manifest_at.path)
    extract_mels(manifest_at, at / "mels", Extraction())
    found = open_mel_dataset(at / "mels")
    assert found.tracks["segments"].to_pylist() == [1, 1]
    assert found.tracks["split"].to_pylist() == ["train", None] and "moods" not in found.tracks.column_names


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("victim", ["driver", pytest.param("group", marks=pytest.mark.slow)])
def test_a_killed_extraction_ends_as_if_it_had_not_been_killed(tmp_path: Path, victim: str) -> None:
    at = Location(str(tmp_path))
    manifest = catalogue(at, n_good=28, seconds=60.0)
    command = [sys.executable, "jobs/extract_mels.py", "--manifest", manifest.uri, "--out"]

    killed = subprocess.Popen(
        [*command, f"{at}/killed"], cwd=REPOSITORY, stderr=subprocess.PIPE, start_new_session=True
    )
    runs = tmp_path / "killed" / "_runs"
    while len(list(runs.glob("*/done-*"))) < 2:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    if victim == "driver":
        killed.kill()
    else:
        os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (plan,) = runs.glob("*/plan.json")
    n_shards = -(-32 // json.loads(plan.read_text())["tracks_per_shard"])
    marked = {mark.stem.removeprefix("done-") for mark in runs.glob("*/done-*")}
    assert 2 <= len(marked) < n_shards, "in the middle"
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed").glob("mels-*") if file.stem[-6:] in marked}
    assert done, "a shard of the bad ones alone has no file"

    ended = subprocess.run([*command, f"{at}/killed"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "taking up an unfinished run" in ended.stderr
    assert {file: file.stat().st_mtime_ns for file in done} == done, "what was done is not done again"
    extract_mels(manifest, at / "whole", Extraction())
    assert rows(at / "killed").equals(rows(at / "whole"))
    assert (tmp_path / "killed/_failures/failures.parquet").exists()
