"""Each song is scored once as a known artist's and once as an unknown one's, and trains everywhere else."""

from collections import Counter, defaultdict

import pyarrow as pa
import pytest

from mtl_core.dataset.crossfit import CROSSFIT_SCHEMA, crossfit
from mtl_core.errors import InputError

COLUMNS = pa.schema([(name, pa.string()) for name in ("track_id", "artist", "language", "song")])


def table(rows):
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def catalogue(languages=3, artists=5, songs=5):
    return table(
        [
            {
                "track_id": f"{la}/{ar}/{so}",
                "artist": f"{la}-{ar}",
                "language": f"l{la}",
                "song": f"{la}-{ar}-{so // 2}",
            }
            for la in range(languages)
            for ar in range(artists)
            for so in range(songs)
        ]
    )


def assigned(manifest, folds=5, seed=0, **options):
    result = crossfit(manifest, folds=folds, seed=seed, **options)
    assert result.schema == CROSSFIT_SCHEMA
    return {row["track_id"]: (row["fold"], row["artist_fold"]) for row in result.to_pylist()}


def test_the_songs_of_an_artist_are_in_as_many_folds_and_the_artist_is_in_one():
    folds = assigned(catalogue())
    by_artist = defaultdict(list)
    for track_id, pair in folds.items():
        by_artist[track_id.rsplit("/", 1)[0]].append(pair)
    for pairs in by_artist.values():
        assert sorted(fold for fold, _ in pairs) == [0, 1, 2, 3, 4]
        assert len({artist_fold for _, artist_fold in pairs}) == 1
        assert sum(fold == artist_fold for fold, artist_fold in pairs) == 1


def test_the_artists_of_each_language_are_spread_over_the_folds():
    folds = assigned(catalogue())
    for language in range(3):
        of_artists = {track_id[:3]: pair[1] for track_id, pair in folds.items() if track_id.startswith(f"{language}/")}
        assert sorted(of_artists.values()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("songs", [2, 3, 4])
def test_with_fewer_songs_than_folds_all_of_them_are_scored_as_known(songs):
    assert all(fold != artist_fold for fold, artist_fold in assigned(catalogue(songs=songs)).values())


def test_an_only_song_is_kept_from_one_model():
    assert all(fold == artist_fold for fold, artist_fold in assigned(catalogue(songs=1)).values())


def test_versions_of_a_song_share_a_fold():
    folds = assigned(catalogue(), group_column="song")
    for track_id in folds:
        prefix, number = track_id.rsplit("/", 1)
        assert folds[track_id] == folds[f"{prefix}/{int(number) // 2 * 2}"]


def test_tracks_without_an_artist_always_train_and_compilations_are_not_scored():
    rows = [{"track_id": f"{a}{i}", "artist": a, "song": f"{a}{i}"} for a in "ab" for i in range(3)]
    rows += [{"track_id": "none", "artist": None, "song": "x"}]
    rows += [{"track_id": f"both-{a}", "artist": a, "song": "both"} for a in "ab"]
    folds = assigned(table(rows), folds=2, group_column="song")
    assert folds["none"] == (None, None)
    assert [folds["both-a"], folds["both-b"]] == [(None, folds["a0"][1]), (None, folds["b0"][1])]


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    manifest = catalogue()
    assert assigned(manifest) == assigned(manifest.take(list(reversed(range(len(manifest))))))
    assert assigned(manifest) != assigned(manifest, seed=1)
    assert Counter(pair[1] for pair in assigned(manifest, seed=1).values()) == dict.fromkeys(range(5), 15)


@pytest.mark.parametrize("folds", [1, 16])
def test_folds_out_of_range(folds):
    with pytest.raises(InputError, match=f"folds must be 2 to the number of artists, 15, got {folds}"):
        assigned(catalogue(), folds=folds)


def test_no_such_group_column():
    with pytest.raises(InputError, match="no column 'album'"):
        assigned(catalogue(), group_column="album")
