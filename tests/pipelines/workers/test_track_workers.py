"""The batch classes for a user's own pipeline give the job's rows for any kind of batch; a bad file never raises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core import ExtractMels, TagTracks
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.dataset.mel_dataset import read_tracks
from mtl_core.pipelines.workers.track_workers import MEL_RESULTS, TAG_RESULTS
from mtl_core.storage.location import Location

DATA = Path(__file__).parents[2] / "fixtures" / "version_0_1"
PATHS = {str(path.relative_to(DATA / "catalogue")): path for path in sorted(DATA.glob("catalogue/audio/**/*.*3"))}
BAD = DATA / "catalogue/bad/text.mp3"
LABELS = ("artist", "artist_confidence", "artist_top", "language", "language_confidence", "language_top")


@pytest.fixture(scope="module")
def tag_tracks() -> TagTracks:
    return TagTracks(str(DATA / "best"))


def uri_batch(**columns: list) -> dict[str, np.ndarray]:
    batch = {"uri": [*map(str, PATHS.values()), str(BAD)], "track_id": [*PATHS, "bad"], **columns}
    return {name: np.array(values, object) for name, values in batch.items()}


def labels(table: pa.Table) -> list[dict]:
    return table.select(LABELS).to_pylist()


def test_the_rows_are_those_of_the_job(tag_tracks: TagTracks) -> None:
    table = tag_tracks(uri_batch())
    assert table.schema == TAG_RESULTS
    assert table["track_id"].to_pylist() == [*PATHS, "bad"]
    job = pq.read_table(DATA / "tags_best.parquet").filter(pa.compute.field("track_id").isin(list(PATHS)))
    own = table.slice(0, len(PATHS))
    for name in ("artist", "language", "duration_s", "n_segments", "model_id"):
        assert own[name].to_pylist() == job[name].to_pylist()
    for name in ("artist_confidence", "language_confidence", "embedding"):
        assert np.allclose(own[name].to_pylist(), job[name].to_pylist(), atol=1e-5)
    assert own["stage"].null_count == len(PATHS) and own["run_id"].null_count == len(PATHS)


def test_a_bad_file_is_a_row_with_its_reason(tag_tracks: TagTracks) -> None:
    batch = {"uri": [str(BAD), "/missing.mp3", None, "gs://bucket/a.mp3"]}
    table = tag_tracks({name: np.array(values, object) for name, values in batch.items()})
    reasons = list(zip(table["stage"].to_pylist(), table["error"].to_pylist(), strict=True))
    assert reasons == [("decode", "not_audio"), *[("fetch", "not_found")] * 3]
    assert table["message"][2].as_py() == "the row has neither uri nor bytes"
    assert table["message"].null_count == 0 and table["artist"].null_count == table["embedding"].null_count == 4


def test_every_kind_of_batch_gives_the_same_rows(tag_tracks: TagTracks) -> None:
    expected = labels(tag_tracks(uri_batch()))
    batch = uri_batch(size_bytes=[1, *[None] * len(PATHS)], content_id=[None] * (len(PATHS) + 1))
    table = pa.table({name: pa.array(values) for name, values in batch.items()})
    numbers = batch | {"size_bytes": np.array([1.0, *[np.nan] * len(PATHS)])}
    for other in (batch, numbers, table, table.to_pandas(), table.to_pandas(types_mapper=pd.ArrowDtype)):
        assert labels(tag_tracks(other)) == expected


def test_bytes_give_the_rows_of_the_files(tag_tracks: TagTracks) -> None:
    contents = np.array([Path(uri).read_bytes() for uri in uri_batch()["uri"]], object)
    table = tag_tracks({"bytes": contents})
    assert labels(table) == labels(tag_tracks(uri_batch()))
    assert table["stage"].to_pylist() == [*[None] * len(PATHS), "decode"]


def test_a_file_that_changed_fails(tag_tracks: TagTracks) -> None:
    table = tag_tracks(uri_batch(content_id=["another", *[None] * len(PATHS)]))
    assert table["error"].to_pylist()[:2] == ["changed", None]


def test_mels_are_those_of_the_job_and_a_failed_track_has_one_row() -> None:
    table = ExtractMels(sampling="paper")(uri_batch(artist=["x", *[None] * len(PATHS)]))
    assert table.schema == MEL_RESULTS
    mels = read_tracks(Location(str(DATA / "mels")), PATHS)
    for track_id, mel_FB in mels.items():
        own = table.filter(pa.compute.field("track_id") == track_id)
        own_FB = np.concatenate(own["mel"].combine_chunks().to_numpy_ndarray())
        np.testing.assert_allclose(own_FB, mel_FB, rtol=2**-10, atol=1e-6)  # the last bit of a float16
        assert own["segment"].to_pylist() == list(range(len(own))) and own["stage"].null_count == len(own)
    assert table["artist"][0].as_py() == "x"
    *_, last = table.select(["track_id", "segment", "mel", "stage", "error"]).to_pylist()
    assert last == {"track_id": "bad", "segment": None, "mel": None, "stage": "decode", "error": "not_audio"}


def test_random_draws_are_those_of_the_seed() -> None:
    def starts(seed: int) -> list[float]:
        return ExtractMels(segments=2, draws=1, seed=seed)(uri_batch())["start_s"].to_pylist()

    assert starts(1) == starts(1) != starts(2)


def test_an_empty_batch_has_the_columns(tag_tracks: TagTracks) -> None:
    assert tag_tracks({"uri": np.array([], object)}).schema == TAG_RESULTS
    assert ExtractMels()({"uri": np.array([], object)}).schema == MEL_RESULTS


def test_wrong_arguments_raise(tag_tracks: TagTracks) -> None:
    with pytest.raises(ValueError, match=r"'uri' or 'bytes', got \['path'\]"):
        tag_tracks({"path": np.array(["/a"], object)})
    with pytest.raises(ValueError, match="draws must be 0"):
        ExtractMels(draws=101)
    with pytest.raises(ValueError, match="with spread"):
        ExtractMels(segments_per_excerpt=2)
    with pytest.raises(ValueError, match="time limit"):
        ExtractMels(limits=ReadLimits(decode_limit_s=0))


def test_neither_ray_nor_torch_is_imported() -> None:
    code = "import sys, mtl_core; mtl_core.TagTracks, mtl_core.ExtractMels; print({'ray', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
