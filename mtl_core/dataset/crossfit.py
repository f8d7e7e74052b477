"""Crossfit: which of K fold models each track is kept from, so that all tracks train and all are scored unseen.

Fold model k trains without the songs of fold k, and without any song of the artists of group k. Each song is thus
scored once as a new song of a known artist, by the model of its fold, and once as a song of an unknown artist, by the
model of its artist's group. Then one model trains on everything, and takes its calibration from those scores.

A song is a track, or the tracks with one value of a group column. A hash of the seed and the names decides, so the
order of the rows does not matter.
"""

from collections import Counter, defaultdict

import pyarrow as pa

from mtl_core.dataset.splits import column_values, hash_order
from mtl_core.errors import InputError

CROSSFIT_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        ("fold", pa.int32()),  # the fold model that does not train on the song; null: every one does
        ("artist_fold", pa.int32()),  # the fold model that trains on no song of the artist; null: there is no artist
    ]
)


def crossfit(manifest: pa.Table, *, folds: int, seed: int, group_column: str | None = None) -> pa.Table:
    """Assign every track to a fold, and its artist to another one.

    Artists are dealt to the folds language by language. The songs of an artist of fold g go to the folds g + 1, g + 2,
    …, in hash order, so that the first K - 1 of them are scored as a known artist's. The only song of an artist is in
    its artist's fold, because no model can know the artist without it. Tracks without an artist, and songs of several
    artists (compilations), have no fold.

    Args:
        manifest: one row a track: `track_id`, `artist`, `language` (both nullable), and the group column.
        folds: K, >= 2.
        seed: decides who is in which fold.
        group_column: tracks with one value of it are one song; None: each track is a song.

    Returns:
        A table `CROSSFIT_SCHEMA`, sorted by track_id.

    Raises:
        InputError: folds is below 2 or above the number of artists, or there is no such column.
    """
    track_ids = manifest["track_id"].to_pylist()
    artists, languages, groups = (column_values(manifest, name) for name in ("artist", "language", group_column))
    n_artists = len({artist for artist in artists if artist is not None})
    if n_artists < 2:
        raise InputError(f"the split crossfit needs two artists or more, got {n_artists}: use --split none")
    if not 2 <= folds <= n_artists:
        raise InputError(f"folds must be 2 to the number of artists, {n_artists}, got {folds}")
    artist_fold = _deal_artists(artists, languages, folds, seed)
    songs = [
        f"track {track}" if group is None else f"group {group}" for track, group in zip(track_ids, groups, strict=True)
    ]
    artists_of_song: dict[str, set[str | None]] = defaultdict(set)
    songs_of_artist: dict[str, set[str]] = defaultdict(set)
    for song, artist in zip(songs, artists, strict=True):
        artists_of_song[song].add(artist)
    for song, singers in artists_of_song.items():
        (artist, *others) = singers
        if artist is not None and not others:
            songs_of_artist[artist].add(song)
    song_fold: dict[str, int] = {}
    for artist, names in songs_of_artist.items():
        first = artist_fold[artist] + (len(names) > 1)
        song_fold |= {song: (first + rank) % folds for rank, song in enumerate(hash_order(names, seed))}
    rows = sorted(
        (track_id, song_fold.get(song), None if artist is None else artist_fold[artist])
        for track_id, song, artist in zip(track_ids, songs, artists, strict=True)
    )
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=CROSSFIT_SCHEMA)


def _deal_artists(artists: list[str | None], languages: list[str | None], folds: int, seed: int) -> dict[str, int]:
    """artist -> fold. The artists of a language, which is an artist's most frequent one, go to the folds in turns."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for artist, language in zip(artists, languages, strict=True):
        if artist is not None:
            counts[artist][language or ""] += 1
    artists_of_language: dict[str, list[str]] = defaultdict(list)
    for artist, languages_of in counts.items():
        artists_of_language[min(languages_of, key=lambda language: (-languages_of[language], language))].append(artist)
    dealt = [
        artist for language in sorted(artists_of_language) for artist in hash_order(artists_of_language[language], seed)
    ]
    return {artist: number % folds for number, artist in enumerate(dealt)}
