"""Truths about manifests: what is listed, how labels join, and what the door refuses."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.audio.source import open_track
from mtl_core.dataset import manifest
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST
from mtl_core.storage.location import Location


def catalogue(root: str, labels: str | None = None) -> tuple[Location, Location]:
    top = Location(root)
    for name in ("b/two.MP3", "a/one.flac", "a/cover.jpg", "a/odd.x", "notes.txt"):
        (top / name).write_bytes(name.encode())
    if labels is not None:
        (top / "labels.csv").write_bytes(labels.encode())
    return top, top / "labels.csv"


def test_a_catalogue_is_its_audio_and_what_the_labels_name(root: str) -> None:
    labels = '\ufeffpath,artist,language,mood\r\na/odd.x,"Ada, and",,calm\na/one.flac,,xx,\nb/gone.mp3,Bo,xx,\n'
    top, at = catalogue(root, labels)
    built = manifest.build_from(top, at)
    assert built.labels_without_file == ["b/gone.mp3"]
    assert built.table.schema.names == [*MANIFEST.names, "mood"]
    rows = built.table.to_pylist()
    assert [row["track_id"] for row in rows] == ["a/odd.x", "a/one.flac", "b/two.MP3"]
    assert [row["uri"] for row in rows] == [f"{top.uri}/{row['track_id']}" for row in rows]
    assert [(row["artist"], row["language"], row["mood"]) for row in rows] == [
        ("Ada, and", None, "calm"),
        (None, "xx", None),
        (None, None, None),
    ]
    assert all(row["content_id"] and row["size_bytes"] == len(row["track_id"]) for row in rows)
    manifest.write(built.table, top / "manifest.parquet")
    assert manifest.read(top / "manifest.parquet").equals(built.table)


def test_the_manifest_is_the_same_wherever_the_catalogue_is(tmp_path: Path, bucket: str) -> None:
    columns = ["track_id", "artist", "language", "album", "size_bytes"]
    disk, s3 = (manifest.build_from(catalogue(place)[0], None).table for place in (str(tmp_path), bucket))
    assert disk.select(columns).equals(s3.select(columns))


def test_a_link_to_a_file_is_a_track_and_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    top, _ = catalogue(str(tmp_path))
    (tmp_path / "linked.flac").symlink_to(tmp_path / "a" / "one.flac")
    (tmp_path / "nowhere.flac").symlink_to(tmp_path / "gone")
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp3")).write_bytes(b"x")
    built = manifest.build_from(top, None)
    assert built.table["track_id"].to_pylist() == ["a/one.flac", "b/two.MP3", "linked.flac", "nowhere.flac"]
    assert len(built.undecodable_names) == 1 and "caf" in built.undecodable_names[0]


def test_keys_with_empty_names_keep_them(bucket: str) -> None:
    top = Location(bucket) / "catalogue"
    top.filesystem.pipe_file(f"{top.path}//one.flac", b"x")
    uri = manifest.build_from(top, None).table["uri"][0].as_py()
    assert uri == f"{top.uri}//one.flac" and open_track(uri) == b"x"


def test_labels_may_name_the_tracks(tmp_path: Path) -> None:
    built = manifest.build_from(*catalogue(str(tmp_path), "path,track_id\na/one.flac,ISRC1\n./b/two.MP3,\n"))
    assert built.table["track_id"].to_pylist() == ["ISRC1", "b/two.MP3"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("file,artist\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,uri\n", r"\['uri'\] are taken"),
        ("path,artist,artist\n", r"\['artist'\] are taken"),
        ("path\na/one.flac\n./a/one.flac\n", "row 3: path 'a/one.flac' stands there twice"),
        ("path,artist\na/one.flac\n", "row 2: 1 cells where the header has 2"),
        ("path,track_id\na/one.flac,t\nb/two.MP3,t\n", "1 track_ids stand there more than once, 't'"),
        ("path\n\xff", None),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, labels: str, said: str | None) -> None:
    top, at = catalogue(str(tmp_path))
    at.write_bytes(labels.encode("latin-1" if said is None else "utf-8"))
    with pytest.raises(InputError, match=said or "no UTF-8 CSV"):
        manifest.build_from(top, at)


def test_labels_may_lie_in_the_folders(root: str) -> None:
    top = Location(root)
    for path in ("LANGUAGE_xx/ARTIST_Ada/1.wav", "LANGUAGE_xx/ARTIST_Ada/cover.jpg", "loose.mp3"):
        (top / path).write_bytes(b"x")
    built = manifest.build_from(top, None, from_folders=True)
    rows = {row["track_id"]: (row["language"], row["artist"], row["album"]) for row in built.table.to_pylist()}
    assert rows == {"LANGUAGE_xx/ARTIST_Ada/1.wav": ("xx", "Ada", None), "loose.mp3": (None, None, None)}
    assert (built.outside_layout, built.labels_without_file) == (["loose.mp3"], [])
    (top / "LANGUAGE_xx/ARTIST_Ada/1.wav").delete()
    with pytest.raises(InputError, match=r"no song lies in LANGUAGE/ARTIST/, 'loose.mp3' for one"):
        manifest.build_from(top, None, from_folders=True)


def test_nothing_to_list_is_refused(root: str) -> None:
    with pytest.raises(InputError, match=r"nothing is there|no audio file"):
        manifest.build_from(Location(root), None)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"track_id": ["a"]}, "no column 'uri'"),
        ({"uri": ["/a"]}, "no column 'track_id'"),
        ({"track_id": ["a", "a"], "uri": ["/a", "/b"]}, "1 track_ids stand there more than once, 'a'"),
        ({"track_id": ["a", None], "uri": ["/a", "/b"]}, "1 rows without track_id"),
        ({"track_id": ["a", "b"], "uri": ["/a", ""]}, "1 rows without uri"),
        ({"track_id": ["a"], "uri": ["relative/path"]}, "uri 'relative/path': allowed"),
        ({"track_id": ["a"], "uri": ["gs://b/c"]}, "uri 'gs://b/c': allowed"),
        ({"track_id": [["a"]], "uri": ["/a"]}, "column 'track_id' is list"),
        ({"track_id": ["a"], "uri": ["/a"], "size_bytes": ["many"]}, "column 'size_bytes' is string"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=said):
        manifest.read(Location(str(tmp_path / "m.parquet")))


def test_a_manifest_needs_two_columns_and_may_be_a_folder(root: str) -> None:
    folder = Location(root)
    for name, column in (("a", pa.array(["a"]).dictionary_encode()), ("b", pa.array(["b"], pa.large_string()))):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"track_id": column, "uri": pa.array(["s3://x/y"])}), buffer)
        (folder / f"{name}.parquet").write_bytes(buffer.getvalue().to_pybytes())
    table = manifest.read(folder)
    assert table.schema == MANIFEST
    assert table["track_id"].to_pylist() == ["a", "b"]
    assert table["artist"].null_count == 2


def test_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("text.parquet", "no Parquet manifest"),
        ("folder", "without Parquet"),
        ("gone", "nothing is there"),
    ):
        with pytest.raises(InputError, match=said):
            manifest.read(Location(str(tmp_path / name)))
