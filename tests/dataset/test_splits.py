"""Splits hold out the right number of tracks, keep groups together, and depend on nothing but seed and names."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.splits import SPLITS_SCHEMA, split
from mtl_core.errors import InputError


def catalogue(languages=17, artists=4, songs=5, albums=0):
    """Songs named by language, artist and number; `albums` songs share an album (0: the albums are unknown)."""
    rows = [
        {
            "track_id": f"{la}/{ar}/{so}.mp3",
            "artist": f"artist {la}-{ar}",
            "language": f"language {la}",
            "album": f"album {la}-{ar}-{so // albums}" if albums else None,
        }
        for la in range(languages)
        for ar in range(artists)
        for so in range(songs)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(n, pa.string()) for n in rows[0]]))


def irregular_catalogue(seed):
    """Artists with 1 to 40 songs, some in two languages, missing labels, albums of any size, and compilations."""
    rng = np.random.default_rng(seed)
    rows = []
    for a in range(rng.integers(1, 30)):
        home = rng.integers(0, 5)
        for s in range(int(np.exp(rng.uniform(0, np.log(40))))):
            language = home if rng.random() < 0.95 else rng.integers(0, 5)
            rows.append(
                {
                    "track_id": f"{a}-{s}",
                    "artist": f"a{a}" if rng.random() < 0.97 else None,
                    "language": f"l{language}" if rng.random() < 0.97 else None,
                    "album": [None, "compilation", f"{a}/{s // 3}"][rng.choice(3, p=[0.05, 0.03, 0.92])],
                }
            )
    return pa.Table.from_pylist(rows, schema=pa.schema([(n, pa.string()) for n in rows[0]]))


def split_of_tracks(table, **options):
    result = split(table, **{"seed": 0, **options})
    assert result.schema == SPLITS_SCHEMA
    assert result["track_id"].to_pylist() == sorted(table["track_id"].to_pylist())
    return dict(zip(*result.to_pydict().values(), strict=True))


@pytest.mark.parametrize("albums", [0, 2, 5])
@pytest.mark.parametrize("seed", [0, 1, 17])
def test_paper_splits_340_songs_into_272_34_34_with_one_song_of_every_artist(albums, seed):
    table = catalogue(albums=albums)
    splits = split_of_tracks(table, kind="paper", seed=seed)
    assert Counter(splits.values()) == {"train": 272, "validation": 34, "test": 34}
    held = {t: p for t, p in splits.items() if p != "train"}
    assert set(Counter(t.rsplit("/", 1)[0] for t in held).values()) == {1}
    assert set(Counter((t.split("/")[0], p) for t, p in held.items()).values()) == {2}
    assert len({t.rsplit("/", 1)[0] for t in held}) == 68


def test_paper_needs_no_album_column():
    table = catalogue()
    assert split_of_tracks(table.drop_columns("album"), kind="paper") == split_of_tracks(table, kind="paper")


@pytest.mark.parametrize("kind", ["paper", "kfold", "album", "artist"])
def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows(kind):
    table = catalogue(6, 4, 6, albums=2)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    assert split_of_tracks(shuffled, kind=kind) == split_of_tracks(table, kind=kind)
    assert split_of_tracks(table, kind=kind, seed=1) != split_of_tracks(table, kind=kind)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("kind", "group"), [("paper", None), ("paper", "album"), ("kfold", "album"), ("album", None)])
def test_labels_groups_and_artists_of_an_irregular_catalogue(kind, group, seed):
    table = irregular_catalogue(seed)
    try:
        splits = split_of_tracks(table, kind=kind, group_column=group)
    except InputError as error:
        assert "hold out" in str(error) or "two groups" in str(error)
        return
    rows = table.to_pylist()
    for row in rows:
        if row["artist"] is None or row["language"] is None:
            assert splits[row["track_id"]] == "train"
    labelled = {r["artist"] for r in rows} - {None}
    assert {r["artist"] for r in rows if splits[r["track_id"]] == "train"} >= labelled
    if group or kind == "album":
        splits_of_group = {}
        for row in rows:
            splits_of_group.setdefault(row["album"], set()).add(splits[row["track_id"]])
        assert all(len(names) == 1 for album, names in splits_of_group.items() if album is not None)
    if kind == "album":
        assert all(splits[r["track_id"]] == "train" for r in rows if r["album"] is None)


@pytest.mark.parametrize("seed", range(10))
def test_paper_holds_out_a_fifth_of_each_language_and_of_each_artist(seed):
    rng = np.random.default_rng(seed)
    counts = {(la, a): int(rng.integers(2, 60)) for la in "xyz" for a in range(rng.integers(1, 12))}
    rows = [(f"{la}{a}-{s}", f"{la}{a}", la, None) for (la, a), n in counts.items() for s in range(n)]
    table = pa.table(
        dict(zip(("track_id", "artist", "language", "album"), map(list, zip(*rows, strict=True)), strict=True))
    )
    splits = split_of_tracks(table, kind="paper", seed=seed)
    held = Counter(artist for track, artist, *_ in rows if splits[track] != "train")
    assert all(n // 5 <= held[f"{la}{a}"] <= -(-n // 5) for (la, a), n in counts.items())
    for language in "xyz":
        tracks = [t for t, _, la, _ in rows if la == language]
        assert abs(sum(splits[t] != "train" for t in tracks) - len(tracks) / 5) <= 0.5
        assert abs(sum((splits[t] == "test") - (splits[t] == "validation") for t in tracks)) <= 1


def test_versions_of_a_song_stay_together():
    table = catalogue(3, 2, 10)
    song = [f"{a} {i // 2}" for i, a in enumerate(table["artist"].to_pylist())]
    table = table.append_column("song", pa.array(song))
    for kind in ("paper", "kfold"):
        splits = split_of_tracks(table, kind=kind, group_column="song")
        pairs = Counter((s, splits[t]) for s, t in zip(song, table["track_id"].to_pylist(), strict=True))
        assert set(pairs.values()) == {2}
        assert set(splits.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(10))
def test_folds_together_test_once_every_song_of_artists_with_two_or_more(seed):
    table = irregular_catalogue(seed)
    labelled = [r for r in table.to_pylist() if r["artist"] and r["language"]]
    songs = Counter(r["artist"] for r in labelled)
    folds = max(songs.values())
    if folds < 2:
        pytest.skip("no artist with two songs was drawn")
    tested = Counter()
    for fold in range(folds):
        splits = split_of_tracks(table, kind="kfold", fold=fold)
        tested.update(t for t, p in splits.items() if p == "test")
        held = Counter((r["artist"], splits[r["track_id"]]) for r in labelled)
        for artist, n in songs.items():
            assert held[artist, "test"] == (1 if fold < n > 1 else 0)
            assert held[artist, "validation"] == (1 if fold < n > 2 else 0)
    assert tested == {r["track_id"]: 1 for r in labelled if songs[r["artist"]] > 1}
    for fold in (-1, folds):
        with pytest.raises(InputError, match=f"fold {fold}: allowed are 0 to {folds - 1}"):
            split(table, kind="kfold", seed=0, fold=fold)


def test_validation_of_a_fold_is_the_test_of_the_next_fold():
    splits = [split_of_tracks(catalogue(2, 2, 5), kind="kfold", fold=fold) for fold in range(5)]
    for fold, next_fold in zip(splits, splits[1:] + splits[:1], strict=True):
        assert [t for t, p in fold.items() if p == "validation"] == [t for t, p in next_fold.items() if p == "test"]


def test_album_holds_out_whole_albums_and_artists_with_one_album_train():
    splits = split_of_tracks(catalogue(5, 5, 12, albums=3), kind="album")
    assert Counter(splits.values()) == {"train": 240, "validation": 30, "test": 30}  # 100 albums of 3: 80, 10, 10
    assert set(split_of_tracks(catalogue(5, 4, 6, albums=6), kind="album").values()) == {"train"}


@pytest.mark.parametrize("seed", range(20))
def test_artist_keeps_artists_in_one_split_and_every_language_trains(seed):
    rows = irregular_catalogue(seed).to_pylist()
    splits = split_of_tracks(irregular_catalogue(seed), kind="artist")
    splits_of_artist = {}
    for row in rows:
        if row["artist"] is not None:
            splits_of_artist.setdefault(row["artist"], set()).add(splits[row["track_id"]])
    assert all(len(names) == 1 for names in splits_of_artist.values())
    training = {r["language"] for r in rows if splits[r["track_id"]] == "train"}
    assert training >= {r["language"] for r in rows}


@pytest.mark.parametrize(
    ("artists", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (20, (16, 2, 2))]
)
def test_artist_tests_a_tenth_of_the_artists_and_at_least_one(artists, expected):
    splits = split_of_tracks(catalogue(3, artists, 2), kind="artist")
    for language in "012":
        held = {(t.split("/")[1], p) for t, p in splits.items() if t.startswith(language)}
        counts = Counter(p for _, p in held)
        assert (counts["train"], counts["validation"], counts["test"]) == expected


def test_artists_that_share_a_value_of_the_group_column_train():
    table = catalogue(1, 4, 2)
    table = table.append_column("song", pa.array(["duet", "b", "duet", "d", "e", "f", "g", "h"]))
    for seed in range(10):
        splits = split_of_tracks(table, kind="artist", group_column="song", seed=seed)
        assert {splits[f"0/{a}/{s}.mp3"] for a in (0, 1) for s in (0, 1)} == {"train"}
        assert Counter(splits.values())["test"] == 2


@pytest.mark.parametrize("column", ["artist", "language"])
def test_a_catalogue_labelled_for_one_task_splits_too(column):
    table = catalogue(4, 4, 5)
    empty = table.set_column(table.column_names.index(column), column, pa.nulls(len(table), pa.string()))
    assert Counter(split_of_tracks(empty, kind="paper").values()) == {"train": 64, "validation": 8, "test": 8}
    assert split_of_tracks(table.drop_columns(column), kind="paper") == split_of_tracks(empty, kind="paper")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "random"}, "random.*paper, kfold, album, artist"),
        ({"kind": "paper", "group_column": "song"}, "song.*artist, language, album"),
        ({"kind": "album"}, "nothing to hold out.*album"),
        ({"kind": "kfold", "fold": 5}, "fold 5: allowed are 0 to 4"),
    ],
)
def test_a_split_that_is_not_possible_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        split(catalogue(2, 2, 5), seed=0, **options)


def test_an_error_says_that_artists_share_the_values_of_the_group_column():
    table = catalogue(2, 2, 4)
    table = table.append_column("song", pa.array([str(i % 4) for i in range(16)]))
    with pytest.raises(InputError, match="4 artists share values of 'song'"):
        split(table, kind="kfold", seed=0, group_column="song")


def test_a_track_that_occurs_twice_is_refused():
    table = catalogue(1, 2, 2)
    with pytest.raises(InputError, match="1 track_ids occur more than once"):
        split(pa.concat_tables([table, table.slice(0, 1)]), kind="paper", seed=0)
