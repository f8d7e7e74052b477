"""Labels from folders: which paths have the layout, and what a prefix does."""

import pytest

from mtl_core.dataset.folder_labels import load_folder_labels
from mtl_core.storage.sql import open_database


def labels_from_paths(paths):
    """Path -> its labels, of the paths that have any."""
    with open_database() as database:
        names = load_folder_labels(database, f"SELECT unnest({paths}::VARCHAR[]) AS path")
        rows = database.sql("SELECT * EXCLUDE row FROM labels").fetchall()
    return {path: dict(zip(names, cells, strict=True)) for path, *cells in rows}


def labels(**known):
    return {"language": None, "artist": None, "album": None} | known


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LANGUAGE_Hindi/ARTIST_Lata_M/1 song.wav", labels(language="Hindi", artist="Lata_M")),
        ("LANGUAGE_Hindi/ARTIST_A/album/1.wav", labels(language="Hindi", artist="A", album="album")),
        ("hindi/lata/1.wav", labels(language="hindi", artist="lata")),
        ("hindi/ARTIST_lata/1.wav", labels(language="hindi", artist="lata")),
        ("Language_x/a/1.wav", labels(language="Language_x", artist="a")),  # the prefix must be in capitals
    ],
)
def test_the_folders_of_a_song_give_its_language_artist_and_album(path, expected):
    assert labels_from_paths([path]) == {path: expected}


@pytest.mark.parametrize(
    "path", ["1.wav", "hindi/1.wav", "a/b/c/d/1.wav", "LANGUAGE_/ARTIST_a/1.wav", "//1.wav", "a/ /1.wav"]
)
def test_a_path_of_another_layout_has_no_labels(path):
    assert labels_from_paths([path]) == {}


def test_if_one_folder_has_the_prefix_folders_without_it_are_not_labels():
    paths = [
        "LANGUAGE_a/ARTIST_b/1.wav",
        "covers/ARTIST_b/1.wav",
        "LANGUAGE_a/various/1.wav",
        "LANGUAGE_c/ARTIST_b/1.wav",
    ]
    rows = labels_from_paths(paths)
    assert set(rows) == {paths[0], paths[3]}
    assert {(row["language"], row["artist"]) for row in rows.values()} == {("a", "b"), ("c", "b")}
