import pytest

from mtl_core.dataset.folder_labels import labels_from_paths


def labels(**given):
    return {"language": None, "artist": None, "album": None} | given


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("LANGUAGE_Hindi/ARTIST_Lata_M/1 song.wav", labels(language="Hindi", artist="Lata_M")),
        ("LANGUAGE_Hindi/ARTIST_A/album/1.wav", labels(language="Hindi", artist="A", album="album")),
        ("hindi/lata/1.wav", labels(language="hindi", artist="lata")),
        ("hindi/ARTIST_lata/1.wav", labels(language="hindi", artist="lata")),
        ("Language_x/a/1.wav", labels(language="Language_x", artist="a")),  # the prefix is in capitals
    ],
)
def test_a_song_is_of_the_language_and_the_artist_whose_folders_it_lies_in(path, found):
    assert labels_from_paths([path]) == ({path: found}, [])


@pytest.mark.parametrize(
    "path", ["1.wav", "hindi/1.wav", "a/b/c/d/1.wav", "LANGUAGE_/ARTIST_a/1.wav", "//1.wav", "a/ /1.wav"]
)
def test_what_lies_elsewhere_has_no_labels(path):
    assert labels_from_paths([path]) == ({}, [path])


def test_where_one_folder_has_the_prefix_others_without_are_no_labels():
    paths = [
        "LANGUAGE_a/ARTIST_b/1.wav",
        "covers/ARTIST_b/1.wav",
        "LANGUAGE_a/various/1.wav",
        "LANGUAGE_c/ARTIST_b/1.wav",
    ]
    rows, misfits = labels_from_paths(paths)
    assert misfits == paths[1:3]
    assert {(row["language"], row["artist"]) for row in rows.values()} == {("a", "b"), ("c", "b")}
