"""Listing a catalogue: which files are tracks, and how labels join them, on a disk and on S3."""

import os
from pathlib import Path

import pytest

from mtl_core.audio.source import open_track
from mtl_core.dataset import manifest
from mtl_core.dataset.catalogue_listing import list_catalogue
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST
from mtl_core.storage.location import Location


def write_catalogue(root: str, labels: str | None = None) -> tuple[Location, Location]:
    """Two audio files and three others; returns the catalogue and its labels.csv."""
    catalogue = Location(root)
    for name in ("b/two.MP3", "a/one.flac", "a/cover.jpg", "a/odd.x", "notes.txt"):
        (catalogue / name).write_bytes(name.encode())
    if labels is not None:
        (catalogue / "labels.csv").write_bytes(labels.encode())
    return catalogue, catalogue / "labels.csv"


def test_tracks_are_the_audio_files_and_the_files_that_labels_name(root: str) -> None:
    content = '\ufeffpath,artist,language,mood\r\na/odd.x,"Ada, and",,calm\na/one.flac,,xx,\nb/gone.mp3,Bo,xx,\n'
    catalogue, labels = write_catalogue(root, content)
    listing = list_catalogue(catalogue, labels)
    assert listing.labels_without_file == ["b/gone.mp3"]
    assert listing.table.schema.names == [*MANIFEST.names, "mood"]
    rows = listing.table.to_pylist()
    assert [row["track_id"] for row in rows] == ["a/odd.x", "a/one.flac", "b/two.MP3"]
    assert [row["uri"] for row in rows] == [f"{catalogue.uri}/{row['track_id']}" for row in rows]
    assert [(row["artist"], row["language"], row["mood"]) for row in rows] == [
        ("Ada, and", None, "calm"),
        (None, "xx", None),
        (None, None, None),
    ]
    assert all(row["content_id"] and row["size_bytes"] == len(row["track_id"]) for row in rows)
    manifest.write(listing.table, catalogue / "manifest.parquet")
    assert manifest.read(catalogue / "manifest.parquet").equals(listing.table)


def test_a_disk_and_s3_give_the_same_tracks(tmp_path: Path, bucket: str) -> None:
    columns = ["track_id", "artist", "language", "album", "size_bytes"]
    disk, s3 = (list_catalogue(write_catalogue(root)[0], None).table for root in (str(tmp_path), bucket))
    assert disk.select(columns).equals(s3.select(columns))


def test_a_symbolic_link_is_a_track_and_a_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    (tmp_path / "linked.flac").symlink_to(tmp_path / "a" / "one.flac")
    (tmp_path / "nowhere.flac").symlink_to(tmp_path / "gone")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp3")).write_bytes(b"x")
    listing = list_catalogue(catalogue, None)
    assert listing.table["track_id"].to_pylist() == ["a/one.flac", "b/two.MP3", "linked.flac", "nowhere.flac"]
    assert len(listing.undecodable_names) == 1 and "caf" in listing.undecodable_names[0]


def test_an_empty_folder_name_in_a_key_is_kept(bucket: str) -> None:
    catalogue = Location(bucket) / "catalogue"
    catalogue.filesystem.pipe_file(f"{catalogue.path}//one.flac", b"x")
    uri = list_catalogue(catalogue, None).table["uri"][0].as_py()
    assert uri == f"{catalogue.uri}//one.flac" and open_track(uri) == b"x"


def test_labels_may_give_the_track_ids(tmp_path: Path) -> None:
    catalogue, labels = write_catalogue(str(tmp_path), "path,track_id\na/one.flac,ISRC1\n./b/two.MP3,\n")
    assert list_catalogue(catalogue, labels).table["track_id"].to_pylist() == ["ISRC1", "b/two.MP3"]


def test_a_track_id_that_labels_give_twice_is_refused(tmp_path: Path) -> None:
    catalogue, labels = write_catalogue(str(tmp_path), "path,track_id\na/one.flac,t\nb/two.MP3,t\n")
    with pytest.raises(InputError, match="1 track_ids occur more than once"):
        list_catalogue(catalogue, labels)


def test_folders_may_give_the_labels(root: str) -> None:
    catalogue = Location(root)
    for path in ("LANGUAGE_xx/ARTIST_Ada/1.wav", "LANGUAGE_xx/ARTIST_Ada/cover.jpg", "loose.mp3"):
        (catalogue / path).write_bytes(b"x")
    listing = list_catalogue(catalogue, None, labels_from_folders=True)
    rows = {row["track_id"]: (row["language"], row["artist"], row["album"]) for row in listing.table.to_pylist()}
    assert rows == {"LANGUAGE_xx/ARTIST_Ada/1.wav": ("xx", "Ada", None), "loose.mp3": (None, None, None)}
    assert (listing.outside_layout, listing.labels_without_file) == (["loose.mp3"], [])
    (catalogue / "LANGUAGE_xx/ARTIST_Ada/1.wav").delete()
    with pytest.raises(InputError, match=r"no file lies in LANGUAGE/ARTIST/, e.g. 'loose.mp3'"):
        list_catalogue(catalogue, None, labels_from_folders=True)


def test_a_catalogue_without_files_is_refused(root: str) -> None:
    with pytest.raises(InputError, match=r"nothing is there|no audio file"):
        list_catalogue(Location(root), None)


def test_labels_join_by_the_path_as_it_is(bucket: str) -> None:
    catalogue = Location(bucket)
    for key in ("c//double.mp3", "c/double.mp3", " lead.mp3", "lead.mp3"):
        catalogue.filesystem.pipe_file(f"{catalogue.path}/{key}", b"x")
    (catalogue / "labels.csv").write_bytes(b"path,artist\nc//double.mp3,Two\n lead.mp3,Space\n")
    listing = list_catalogue(catalogue, catalogue / "labels.csv")
    artists = {row["track_id"]: row["artist"] for row in listing.table.to_pylist()}
    assert artists == {"c//double.mp3": "Two", "c/double.mp3": None, " lead.mp3": "Space", "lead.mp3": None}
    assert listing.labels_by_likeness == []


def test_labels_join_a_path_that_is_written_in_another_way_if_it_is_the_only_one(tmp_path: Path) -> None:
    composed, decomposed = "Bj\u00f6rk.mp3", "Bjo\u0308rk.mp3"
    for name in (f"a/{decomposed}", f"b/{composed}", f"b/{decomposed}", "c.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(f"path,artist\na/{composed},A\nb/{composed},B\n./c.mp3 ,C\n")
    listing = list_catalogue(Location(str(tmp_path)), Location(str(tmp_path / "labels.csv")))
    artists = {row["track_id"]: row["artist"] for row in listing.table.to_pylist()}
    assert artists == {f"a/{decomposed}": "A", f"b/{composed}": "B", f"b/{decomposed}": None, "c.mp3": "C"}
    assert listing.labels_by_likeness == [f"a/{decomposed}", "c.mp3"] and listing.labels_without_file == []


def test_what_macos_writes_beside_files_is_no_track(root: str) -> None:
    catalogue, _ = write_catalogue(root)
    (catalogue / "a" / "._one.flac").write_bytes(b"x")
    assert list_catalogue(catalogue, None).table["track_id"].to_pylist() == ["a/one.flac", "b/two.MP3"]


def test_a_link_that_cannot_be_followed_is_a_track_that_will_fail(tmp_path: Path) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    (tmp_path / "loop.flac").symlink_to(tmp_path / "loop.flac")
    assert "loop.flac" in list_catalogue(catalogue, None).table["track_id"].to_pylist()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    listed = os.scandir

    def refuse(path: str) -> object:  # as a mode would, which root does not heed
        if str(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_catalogue(catalogue, None)
    assert listing.unreadable_folders == [f"{tmp_path}/b"]
    assert listing.table["track_id"].to_pylist() == ["a/one.flac"]


def test_a_folder_that_can_be_listed_but_not_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    for name in ("stat", "lstat"):
        known = getattr(os, name)

        def refuse(path, *args, known=known, **kwargs):
            if "/b/" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return known(path, *args, **kwargs)

        monkeypatch.setattr(os, name, refuse)
    listing = list_catalogue(catalogue, None)
    assert listing.unreadable_folders == [f"{tmp_path}/b"]
    assert listing.table["track_id"].to_pylist() == ["a/one.flac"]


def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))

    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="access denied"):
        list_catalogue(catalogue, None)
