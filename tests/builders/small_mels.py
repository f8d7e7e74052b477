"""Small mels that a network learns in a few updates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builders.mels import write_mel_files
from mtl_core.audio.front_end import FrontEnd
from mtl_core.storage.location import Location

#: Of `write_mels`: artists, songs of each, segments of each song, Parquet files.
ARTISTS, SONGS, SEGMENTS, FILES = 4, 5, 3, 5


def write_mels(folder: Path | str, *, front_end: FrontEnd | None = None, artists: bool = True) -> Location:
    """Write `SONGS` tracks of each of `ARTISTS` artists, and one track without labels.

    Each artist has energy in bands of its own; two artists share a language. Without `artists` only the languages are
    labelled.
    """
    tracks = [
        (f"a{artist}" if artists else None, f"l{artist // 2}", f"a{artist}-{song}")
        for song in range(SONGS)
        for artist in range(ARTISTS)
    ]
    return write_tracks(folder, [*tracks, (None, None, "None-0")], front_end)


def write_tracks(
    folder: Path | str, tracks: Sequence[tuple[str | None, str | None, str]], front_end: FrontEnd | None = None
) -> Location:
    """Write tracks (artist, language, track_id) in up to `FILES` files; returns the folder.

    The digit in a track_id such as a2-0, else its first letter, decides in which bands the track has energy; a track
    without an artist is noise alone. What follows the last hyphen names the album.
    """
    random = np.random.default_rng(0)
    files: list[list[dict[str, Any]]] = []
    for number in range(min(FILES, len(tracks))):
        files.append([])
        for artist, language, track_id in tracks[number::FILES]:
            mel_STF = random.random((SEGMENTS, 187, 96), np.float32)
            if artist:
                first_band = 20 * (int(track_id[1]) if track_id[1].isdigit() else ord(track_id[0]) % 4)
                mel_STF[:, :, first_band : first_band + 20] += 2
            album = f"album{track_id.split('-')[-1]}"
            row = {"track_id": track_id, "artist": artist, "language": language, "album": album, "mel": mel_STF}
            files[-1].append(row)
    return write_mel_files(files, Location(str(folder)), front_end=front_end)
