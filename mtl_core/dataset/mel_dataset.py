"""Mel dataset: a folder of mel files with one front end, and where the segments of each track are in it."""

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_files import RUNS_FOLDER, iter_segments, open_mel_file
from mtl_core.errors import InputError
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location

PARALLEL_FOOTERS = 16


@dataclass(frozen=True, kw_only=True)
class MelDataset:
    """What a folder of mels holds."""

    files: tuple[Location, ...]  # its Parquet files, sorted by name
    front_end: FrontEnd  # what made every mel in it
    tracks: pa.Table  # those of all files, as in `MelFile`, sorted by track_id
    #: Those of all files, in their order, as in `MelFile`. Instead of `track_id` they have `file` (index in `files`)
    #: and `track` (index in `tracks`), int64.
    spans: pa.Table

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the front end and of the id, labels and number of segments of each track, in whatever files."""
        digest = hashlib.sha256(self.front_end.hash().encode())
        columns = ["track_id", "segments", "artist", "language"]
        for row in zip(*(self.tracks[column].to_pylist() for column in columns), strict=True):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def groups(self, column: str) -> dict[str, str]:
        """track_id -> the value of a carried column, for the tracks that have one."""
        pairs = zip(self.tracks["track_id"].to_pylist(), self.tracks[column].to_pylist(), strict=True)
        return {track_id: str(value) for track_id, value in pairs if value is not None}


def open_mel_dataset(location: Location) -> MelDataset:
    """Open a folder of mels: read the footers and label columns of its files, but no mel.

    Raises:
        InputError: the folder has no mels, its extraction has not ended, a file is not a Parquet file of mels, the
            files have several front ends, or a track is in two files.
    """
    check_reachable(location)
    with as_input_error(location):
        if any(path.endswith("/plan.json") for path, _ in (location / RUNS_FOLDER).walk()):
            raise InputError(f"{location}: its extraction has not ended: run the same extract_mels command again")
        files = location.files(".parquet")
        if not files:
            raise InputError(f"{location}: there are no mels (.parquet files) in it")
        with ThreadPoolExecutor(PARALLEL_FOOTERS) as pool:
            mel_files = list(pool.map(open_mel_file, files))
    hashes = {mel_file.front_end.hash() for mel_file in mel_files}
    if len(hashes) > 1:
        raise InputError(f"{location} mixes mels of {len(hashes)} front ends: extract them again with one")
    tracks = pa.concat_tables([file.tracks for file in mel_files], promote_options="default").sort_by("track_id")
    if not len(tracks):
        raise InputError(f"{location}: its files have no rows")
    ids = tracks["track_id"].to_pylist()
    repeated = [first for first, second in itertools.pairwise(ids) if first == second]
    if repeated:
        raise InputError(f"{location}: the track {repeated[0]!r} is in two files")
    spans = pa.concat_tables(
        [file.spans.append_column("file", pa.repeat(i, len(file.spans))) for i, file in enumerate(mel_files)]
    )
    track = pc.index_in(spans["track_id"], value_set=tracks["track_id"].combine_chunks()).cast(pa.int64())
    spans = spans.drop_columns("track_id").append_column("track", track)
    return MelDataset(files=tuple(files), front_end=mel_files[0].front_end, tracks=tracks, spans=spans)


def read_tracks(location: Location, track_ids: Collection[str]) -> dict[str, np.ndarray]:
    """Read the mels of a few tracks: track_id -> the frames (T, F) float32 of all its segments, in order.

    Files are read until all tracks are found; of each file the track_ids, and the mels of the row groups with a track.
    """
    segments: dict[str, list[np.ndarray]] = defaultdict(list)
    for file in location.files(".parquet"):
        missing = set(track_ids) - segments.keys()  # a whole track is in one file
        for names, _, mel_STF in iter_segments(file, missing) if missing else ():
            for name, mel_TF in zip(names, mel_STF, strict=True):
                segments[name].append(mel_TF)
    return {name: np.concatenate(mels) for name, mels in segments.items()}
