"""Small mels that a network learns in a few updates: shared by the tests of training."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.audio.front_end import FrontEnd
from mtl_core.schema import FRONT_END, FRONT_END_HASH, MELS
from mtl_core.storage.location import Location

ARTISTS, SONGS, SEGMENTS, FILES = 4, 5, 3, 5


def write_mels(folder, *, front_end=None, artists=True):
    """An artist sounds in bands of its own, two artists share a language; one track has no labels."""
    rows = []
    for song in range(SONGS):
        for artist in range(ARTISTS):
            rows.append((f"a{artist}" if artists else None, f"l{artist // 2}", f"a{artist}-{song}"))
    return write_tracks(folder, [*rows, (None, None, "None-0")], front_end)


def write_tracks(folder, tracks, front_end=None):
    """(artist, language, track_id) each; a name's digit, else its first letter, says in which bands it sounds."""
    folder.mkdir(parents=True, exist_ok=True)
    front_end = front_end or FrontEnd()
    metadata = {FRONT_END: json.dumps(front_end.to_dict()).encode(), FRONT_END_HASH: front_end.hash().encode()}
    random = np.random.default_rng(0)
    for file in range(FILES):
        rows = []
        for artist, language, track_id in tracks[file::FILES]:
            for segment in range(SEGMENTS):
                mel_TF = random.random((187, 96), np.float32)
                if artist:
                    band = 20 * (int(track_id[1]) if track_id[1].isdigit() else ord(track_id[0]) % 4)
                    mel_TF[:, band : band + 20] += 2
                album = f"album{track_id.split('-')[-1]}"
                rows.append((track_id, segment, 3.0 * segment, artist, language, album, mel_TF))
        if not rows:
            continue
        *columns, mels = zip(*rows, strict=True)
        storage = pa.FixedSizeListArray.from_arrays(np.stack(mels).astype(np.float16).reshape(-1), 187 * 96)
        tensors = pa.ExtensionArray.from_storage(MELS.field("mel").type, storage)
        arrays = [pa.array(column, MELS.field(i).type) for i, column in enumerate(columns)]
        table = pa.table([*arrays, tensors], schema=MELS.with_metadata(metadata))
        pq.write_table(table, folder / f"{file}.parquet")
    return Location(str(folder))
