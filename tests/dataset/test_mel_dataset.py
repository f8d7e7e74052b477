"""Folders of mels: what is read without reading a mel, and which folders are refused."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from builders.mels import write_mel_files

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_dataset import open_mel_dataset, read_tracks
from mtl_core.errors import InputError
from mtl_core.schema import MEL_SHAPE
from mtl_core.storage.location import Location

#: Segments of the tracks t0, t1, …; each mel is full of its number, 10 track + segment.
N_SEGMENTS = (3, 1, 7, 4)
TRACKS = [
    {"track_id": f"t{t}", "artist": f"a{t}", "mel": np.stack([np.full(MEL_SHAPE, 10 * t + s) for s in range(n)])}
    for t, n in enumerate(N_SEGMENTS)
]


@pytest.fixture
def mels(tmp_path: Path) -> Location:
    """Two files with row groups of 2 segments, so that tracks continue over row groups."""
    return write_mel_files([TRACKS[2:], TRACKS[:2]], Location(str(tmp_path / "mels")), row_group_size=2)


def test_spans_locate_every_segment(mels: Location) -> None:
    dataset = open_mel_dataset(mels)
    assert dataset.tracks["track_id"].to_pylist() == ["t0", "t1", "t2", "t3"]
    assert dataset.tracks["segments"].to_pylist() == list(N_SEGMENTS)
    totals = dataset.spans.group_by("track").aggregate([("segments", "sum")]).sort_by("track")
    assert totals["segments_sum"].to_pylist() == list(N_SEGMENTS)
    assert pc.max(dataset.spans["row"]).as_py() < 2
    spans = [tuple(row[name] for name in ("file", "row_group", "row", "track")) for row in dataset.spans.to_pylist()]
    assert spans[:5] == [(0, 0, 0, 2), (0, 1, 0, 2), (0, 2, 0, 2), (0, 3, 0, 2), (0, 3, 1, 3)]


def test_a_few_tracks_are_read_whole_and_in_order(mels: Location) -> None:
    frames = read_tracks(mels, ["t0", "t2", "unknown"])
    assert {name: mel_TF[::187, 0].tolist() for name, mel_TF in frames.items()} == {
        "t0": [0, 1, 2],
        "t2": [20, 21, 22, 23, 24, 25, 26],
    }


def test_the_fingerprint_does_not_depend_on_the_files(mels: Location, tmp_path: Path) -> None:
    fingerprint = open_mel_dataset(mels).fingerprint
    one_file = write_mel_files([TRACKS], Location(str(tmp_path / "one file")))
    relabelled = write_mel_files([[{**TRACKS[0], "artist": "b"}, *TRACKS[1:]]], Location(str(tmp_path / "relabelled")))
    assert open_mel_dataset(one_file).fingerprint == fingerprint
    assert open_mel_dataset(relabelled).fingerprint != fingerprint


def test_mels_of_two_front_ends_or_a_track_in_two_files_are_refused(tmp_path: Path) -> None:
    mixed, repeated = Location(str(tmp_path / "mixed")), Location(str(tmp_path / "repeated"))
    write_mel_files([TRACKS[:1]], mixed)
    other = write_mel_files([TRACKS[1:]], Location(str(tmp_path)), front_end=FrontEnd(segments_per_excerpt=2))
    (mixed / "1.parquet").write_bytes((other / "0.parquet").read_bytes())
    with pytest.raises(InputError, match="mixes mels of 2 front ends"):
        open_mel_dataset(mixed)
    with pytest.raises(InputError, match="the track 't0' is in two files"):
        open_mel_dataset(write_mel_files([TRACKS, TRACKS[:1]], repeated))


def test_mels_of_an_unfinished_extraction_are_refused(mels: Location) -> None:
    (mels / "_runs" / "abc" / "plan.json").write_bytes(b"{}")
    with pytest.raises(InputError, match="its extraction has not ended"):
        open_mel_dataset(mels)
