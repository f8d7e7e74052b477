"""Listing a catalogue: which files are tracks, and how labels join them, on a disk and on S3."""

import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_core.audio.source import AUDIO_EXTENSIONS, is_audio_file, open_track
from mtl_core.dataset import catalogue_listing, manifest
from mtl_core.dataset.catalogue_files import Examples
from mtl_core.dataset.catalogue_listing import IS_AUDIO, CatalogueListing, list_catalogue
from mtl_core.errors import InputError
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.schema import MANIFEST
from mtl_core.storage import sql
from mtl_core.storage.location import Location, content_id
from mtl_core.storage.sql import open_database


def write_catalogue(root: str, labels: str | None = None) -> tuple[Location, Location]:
    """Two audio files and three others; returns the catalogue and its labels.csv."""
    catalogue = Location(root)
    for name in ("b/two.MP3", "a/one.flac", "a/cover.jpg", "a/odd.x", "notes.txt"):
        (catalogue / name).write_bytes(name.encode())
    if labels is not None:
        (catalogue / "labels.csv").write_bytes(labels.encode())
    return catalogue, catalogue / "labels.csv"


def list_tracks(catalogue: Location, labels: Location | None, **options) -> tuple[pa.Table, CatalogueListing]:
    """The manifest of a catalogue, and what else was found."""
    with tempfile.TemporaryDirectory() as folder:
        listing = list_catalogue(catalogue, labels, Path(folder) / "manifest.parquet", **options)
        return pq.read_table(Path(folder) / "manifest.parquet"), listing


def track_ids(catalogue: Location, labels: Location | None = None) -> list[str]:
    return list_tracks(catalogue, labels)[0]["track_id"].to_pylist()


def test_tracks_are_the_audio_files_and_the_files_that_labels_name(root: str) -> None:
    content = '\ufeffpath,artist,language,mood\r\na/odd.x,"Ada, and",,calm\na/one.flac,,xx,\nb/gone.mp3,Bo,xx,\n'
    catalogue, labels = write_catalogue(root, content)
    table, listing = list_tracks(catalogue, labels)
    assert listing.labels_without_file == Examples(count=1, first="b/gone.mp3")
    assert table.schema.names == [*MANIFEST.names, "mood"]
    rows = table.to_pylist()
    assert [row["track_id"] for row in rows] == ["a/odd.x", "a/one.flac", "b/two.MP3"]
    assert [row["uri"] for row in rows] == [f"{catalogue.uri}/{row['track_id']}" for row in rows]
    assert [(row["artist"], row["language"], row["mood"]) for row in rows] == [
        ("Ada, and", None, "calm"),
        (None, "xx", None),
        (None, None, None),
    ]
    assert all(row["content_id"] and row["size_bytes"] == len(row["track_id"]) for row in rows)
    manifest.write(table, catalogue / "manifest.parquet")
    assert manifest.read(catalogue / "manifest.parquet").equals(table)


def test_a_disk_and_s3_give_the_same_tracks(tmp_path: Path, bucket: str) -> None:
    columns = ["track_id", "artist", "language", "album", "size_bytes"]
    disk, s3 = (list_tracks(write_catalogue(root)[0], None)[0] for root in (str(tmp_path), bucket))
    assert disk.select(columns).equals(s3.select(columns))


def test_a_symbolic_link_is_a_track_and_a_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    (tmp_path / "linked.flac").symlink_to(tmp_path / "a" / "one.flac")
    (tmp_path / "nowhere.flac").symlink_to(tmp_path / "gone")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp3")).write_bytes(b"x")
    table, listing = list_tracks(catalogue, None)
    assert table["track_id"].to_pylist() == ["a/one.flac", "b/two.MP3", "linked.flac", "nowhere.flac"]
    assert listing.left_out.undecodable_names == Examples(count=1, first="'caf\\udce9.mp3'")


def test_an_empty_folder_name_in_a_key_is_kept(bucket: str) -> None:
    catalogue = Location(bucket) / "catalogue"
    catalogue.filesystem.pipe_file(f"{catalogue.path}//one.flac", b"x")
    uri = list_tracks(catalogue, None)[0]["uri"][0].as_py()
    assert uri == f"{catalogue.uri}//one.flac" and open_track(uri) == b"x"


def test_labels_may_give_the_track_ids(tmp_path: Path) -> None:
    catalogue, labels = write_catalogue(str(tmp_path), "path,track_id\na/one.flac,ISRC1\n./b/two.MP3,\n")
    assert track_ids(catalogue, labels) == ["ISRC1", "b/two.MP3"]


def test_a_track_id_that_labels_give_twice_is_refused(tmp_path: Path) -> None:
    catalogue, labels = write_catalogue(str(tmp_path), "path,track_id\na/one.flac,t\nb/two.MP3,t\n")
    with pytest.raises(InputError, match="1 track_ids occur more than once"):
        list_tracks(catalogue, labels)


def test_folders_may_give_the_labels(root: str) -> None:
    catalogue = Location(root)
    for path in ("LANGUAGE_xx/ARTIST_Ada/1.wav", "LANGUAGE_xx/ARTIST_Ada/cover.jpg", "loose.mp3"):
        (catalogue / path).write_bytes(b"x")
    table, listing = list_tracks(catalogue, None, labels_from_folders=True)
    rows = {row["track_id"]: (row["language"], row["artist"], row["album"]) for row in table.to_pylist()}
    assert rows == {"LANGUAGE_xx/ARTIST_Ada/1.wav": ("xx", "Ada", None), "loose.mp3": (None, None, None)}
    assert (listing.outside_layout.first, listing.labels_without_file.count) == ("loose.mp3", 0)
    (catalogue / "LANGUAGE_xx/ARTIST_Ada/1.wav").delete()
    with pytest.raises(InputError, match=r"no file lies in LANGUAGE/ARTIST/, e.g. 'loose.mp3'"):
        list_tracks(catalogue, None, labels_from_folders=True)


def test_a_catalogue_without_files_is_refused(root: str) -> None:
    with pytest.raises(InputError, match=r"nothing is there|no audio file"):
        list_tracks(Location(root), None)


def test_labels_join_by_the_path_as_it_is(bucket: str) -> None:
    catalogue = Location(bucket)
    for key in ("c//double.mp3", "c/double.mp3", " lead.mp3", "lead.mp3"):
        catalogue.filesystem.pipe_file(f"{catalogue.path}/{key}", b"x")
    (catalogue / "labels.csv").write_bytes(b"path,artist\nc//double.mp3,Two\n lead.mp3,Space\n")
    table, listing = list_tracks(catalogue, catalogue / "labels.csv")
    artists = {row["track_id"]: row["artist"] for row in table.to_pylist()}
    assert artists == {"c//double.mp3": "Two", "c/double.mp3": None, " lead.mp3": "Space", "lead.mp3": None}
    assert listing.labels_by_likeness.count == 0


def test_labels_join_a_path_that_is_written_in_another_way_if_it_is_the_only_one(tmp_path: Path) -> None:
    composed, decomposed = "Bj\u00f6rk.mp3", "Bjo\u0308rk.mp3"
    for name in (f"a/{decomposed}", f"b/{composed}", f"b/{decomposed}", "c.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(f"path,artist\na/{composed},A\nb/{composed},B\n./c.mp3 ,C\n")
    table, listing = list_tracks(Location(str(tmp_path)), Location(str(tmp_path / "labels.csv")))
    artists = {row["track_id"]: row["artist"] for row in table.to_pylist()}
    assert artists == {f"a/{decomposed}": "A", f"b/{composed}": "B", f"b/{decomposed}": None, "c.mp3": "C"}
    assert listing.labels_by_likeness == Examples(count=2, first=f"a/{decomposed}")
    assert listing.labels_without_file.count == 0


def test_what_macos_writes_beside_files_is_no_track(root: str) -> None:
    catalogue, _ = write_catalogue(root)
    (catalogue / "a" / "._one.flac").write_bytes(b"x")
    assert track_ids(catalogue) == ["a/one.flac", "b/two.MP3"]


def test_a_link_that_cannot_be_followed_is_a_track_that_will_fail(tmp_path: Path) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    (tmp_path / "loop.flac").symlink_to(tmp_path / "loop.flac")
    assert "loop.flac" in track_ids(catalogue)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    listed = os.scandir

    def refuse(path: str) -> object:  # as a mode would, which root does not heed
        if str(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    table, listing = list_tracks(catalogue, None)
    assert listing.left_out.unreadable_folders == Examples(count=1, first=f"{tmp_path}/b")
    assert table["track_id"].to_pylist() == ["a/one.flac"]


def test_a_folder_that_can_be_listed_but_not_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))
    for name in ("stat", "lstat"):
        known = getattr(os, name)

        def refuse(path, *args, known=known, **kwargs):
            if "/b/" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return known(path, *args, **kwargs)

        monkeypatch.setattr(os, name, refuse)
    table, listing = list_tracks(catalogue, None)
    assert listing.left_out.unreadable_folders == Examples(count=1, first=f"{tmp_path}/b")
    assert table["track_id"].to_pylist() == ["a/one.flac"]


def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, _ = write_catalogue(str(tmp_path))

    listed = os.scandir

    def refuse(path: str) -> object:
        if path != catalogue.path:  # the temporary folders are removed with it
            return listed(path)
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="access denied"):
        list_tracks(catalogue, None)


@pytest.mark.parametrize(
    "path", ["a.mp3", "a.MP3", "mp3", "a.b/c", "a/._b.mp3", "._a/b.mp3", "a.mp3/", ".mp3", "a.mp3 ", "a.aİf", "a.mKa"]
)
def test_sql_and_python_agree_on_what_an_audio_file_is(path: str) -> None:
    with open_database() as database:
        database.execute("CREATE TABLE files AS SELECT $path AS path", {"path": path})
        assert database.sql(f"SELECT {IS_AUDIO} FROM files").fetchall() == [(is_audio_file(path),)]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*sorted(AUDIO_EXTENSIONS), ".", "/", "._", "MP3", " ", "a.aİf", "a.mKa", "a.\0mp3"]),
            st.characters(blacklist_categories=["Cs"]),
        ),
        min_size=1,
    ).map("".join)
)
def test_sql_and_python_agree_on_any_name(any_name_database: Any, path: str) -> None:
    any_name_database.execute("CREATE OR REPLACE TABLE files AS SELECT $path AS path", {"path": path})
    assert any_name_database.sql(f"SELECT {IS_AUDIO} FROM files").fetchall() == [(is_audio_file(path),)]


@pytest.fixture(scope="module")
def any_name_database() -> Iterator[Any]:
    with open_database() as database:
        yield database


def test_a_listing_and_an_inventory_of_a_bucket_give_the_same_manifest(bucket: str) -> None:
    catalogue, labels = write_catalogue(f"{bucket}/music", "path,artist,Mood,mood\na/odd.x,Ada,x,\nnone,Bo,,\n")
    objects = list(catalogue.walk())
    name = bucket.removeprefix("s3://")
    lines = [f'"{name}","music/{path}","{content_id(entry)}","{entry["size"]}"\n' for path, entry in objects]
    (Location(bucket) / "list" / "1.csv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    inventory = Location(bucket) / "list" / "manifest.json"
    inventory.write_json(
        {
            "sourceBucket": name,
            "destinationBucket": f"arn:aws:s3:::{name}",
            "creationTimestamp": "1767315600000",
            "fileFormat": "CSV",
            "fileSchema": "Bucket, Key, ETag, Size",
            "files": [{"key": "list/1.csv.gz"}],
        }
    )
    listed, read = Location(bucket) / "listed.parquet", Location(bucket) / "read.parquet"
    summary = build_manifest(catalogue, labels, listed).splitlines()
    assert summary[0].startswith("3 tracks, 0.00 GB -> ") and summary[1] == "formats: flac 1, mp3 1, x 1"
    assert "artist: 1 labelled, 1 classes" in summary and "warning: 1 label rows have no file, e.g. none" in summary
    assert "objects as of 2026-01-02 01:00 UTC" in build_manifest(catalogue, labels, read, inventory=inventory)
    assert listed.read_bytes() == read.read_bytes()
    assert manifest.read(read).column_names[-2:] == ["Mood", "mood"]


def test_a_manifest_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    catalogue, labels = write_catalogue(str(tmp_path / "music"), "path,track_id\na/one.flac,t\nb/two.MP3,t\n")
    (tmp_path / "manifest.parquet").write_bytes(b"old")
    with pytest.raises(InputError, match="more than once"):
        build_manifest(catalogue, labels, Location(str(tmp_path / "manifest.parquet")))
    assert (tmp_path / "manifest.parquet").read_bytes() == b"old"


@pytest.mark.parametrize("written", ["as the file", "in another way"])
@pytest.mark.parametrize("share_labelled", [0, 0.5, 1])
@pytest.mark.parametrize("n", [80_000, 120_000, 160_000, 240_000])
def test_a_catalogue_of_any_size_is_listed(
    n: int, share_labelled: float, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of the files and of the memory with which 2.4 million files were too many, and 3.5 were not."""
    monkeypatch.setattr(sql, "MEMORY", "40MiB")
    path = "format('label-{:03}/artist-{:06}/album-{:07}/{:09}.flac', i // 2500, i // 5, i, i) AS path"
    shuffled = f"(SELECT (i * 7919) % {n} AS i FROM range({n}) r(i))"

    def load_files(database: Any, *_: object) -> None:
        columns = "md5(i::VARCHAR) AS content_id, 40000000 + i AS size_bytes"
        database.execute(f"CREATE TABLE files AS SELECT {path}, {columns} FROM {shuffled}")

    def load_labels(database: Any, _: object) -> list[str]:
        start = "./" if written == "in another way" else ""
        columns = f"'{start}' || {path}, i + 1 AS row, 'artist ' || i // 5 AS label_0, 'xx' AS label_1"
        database.execute(f"CREATE TABLE labels AS SELECT {columns} FROM range({int(share_labelled * n)}) r(i)")
        return ["artist", "language"]

    monkeypatch.setattr(catalogue_listing, "load_files", load_files)
    monkeypatch.setattr(catalogue_listing, "load_labels", load_labels)
    draft = tmp_path / "manifest.parquet"
    listing = list_catalogue(Location(str(tmp_path)), Location("labels.csv"), draft)
    tracks = pq.read_table(draft)
    ids = tracks["track_id"].to_pylist()
    assert len(ids) == n and ids == sorted(ids)
    assert n - tracks["artist"].null_count == int(share_labelled * n)
    assert listing.labels_by_likeness.count == (int(share_labelled * n) if written == "in another way" else 0)
