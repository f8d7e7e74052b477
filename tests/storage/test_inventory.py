"""An S3 Inventory read as the files of a catalogue: both formats, all versions, and what is refused."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.errors import InputError
from mtl_core.storage.inventory import load_files, open_inventory
from mtl_core.storage.location import Location
from mtl_core.storage.sql import open_database

CREATED = 1767315600000  # 2026-01-02 01:00 UTC
CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
CSV_ROWS = b"""\
"songs","music/a+b%2B%C3%A9/1.mp3","v","true","false","10","2026-01-01T00:00:00.000Z","e1"
"songs","music/a+b%2B%C3%A9/1.mp3","u","false","false","9","2026-01-01T00:00:00.000Z","e0"
"songs","music/gone.mp3","v","true","true","","2026-01-01T00:00:00.000Z",""
"songs","music/","v","true","false","0","2026-01-01T00:00:00.000Z","e2"
"songs","musical.mp3","v","true","false","1","2026-01-01T00:00:00.000Z","e3"
"""


def write_inventory(folder: Location, content: bytes, **changes) -> Location:
    """Writes manifest.json, and the list beside its folder in data; returns the location of the former."""
    bucket, _, key = folder.path.partition("/")
    manifest = {
        "sourceBucket": "songs",
        "destinationBucket": f"arn:aws:s3:::{bucket or 'inventories'}",
        "creationTimestamp": str(CREATED),
        "fileFormat": "CSV",
        "fileSchema": CSV_SCHEMA,
        "files": [{"key": f"{key}/data/list", "size": len(content), "MD5checksum": "…"}],
    }
    (folder / "data" / "list").write_bytes(content)
    location = folder / "2026-01-02T01-00Z" / "manifest.json"
    location.write_json(manifest | changes)
    return location


def rows(inventory: Location, catalogue: str) -> list[tuple[str, str, int]]:
    with open_database() as database:
        database.execute("CREATE TABLE files (path VARCHAR, content_id VARCHAR, size_bytes BIGINT)")
        load_files(database, open_inventory(inventory), Location(catalogue))
        return database.sql("FROM files ORDER BY path").fetchall()


def to_parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_csv_keys_are_decoded_and_only_the_newest_versions_count(root: str) -> None:
    location = write_inventory(Location(root), gzip.compress(CSV_ROWS))
    assert rows(location, "s3://songs/music") == [("a b+é/1.mp3", "e1", 10)]
    assert rows(location, "s3://songs") == [("music/a b+é/1.mp3", "e1", 10), ("musical.mp3", "e3", 1)]
    assert open_inventory(location).created_at.isoformat() == "2026-01-02T01:00:00+00:00"


@pytest.mark.parametrize("text", [pa.string(), pa.binary()])
def test_parquet_keys_are_as_they_are(tmp_path: Path, text: pa.DataType) -> None:
    keys = pa.array(["m/a+b%2B.mp3", "m/a//b.mp3"]).cast(text)
    content = to_parquet(bucket=["songs"] * 2, key=keys, size=[1, 2], e_tag=pa.array(['"x"', "y"]).cast(text))
    location = write_inventory(Location(str(tmp_path)), content, fileFormat="Parquet", fileSchema="message …")
    assert rows(location, "s3://songs/m") == [("a+b%2B.mp3", "x", 1), ("a//b.mp3", "y", 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fileFormat": "ORC"}, "fileFormat 'ORC': allowed are CSV, Parquet"),
        ({"fileSchema": "Bucket, Key, Size"}, "no field ETag"),
        ({"sourceBucket": "other"}, r"lists s3://other, but the catalogue is s3://songs/music"),
        ({"files": [{"key": "x/gone.csv.gz"}]}, r"gone\.csv\.gz: nothing is there"),
        ({"files": None}, "not the manifest.json of an S3 Inventory"),
        ({"creationTimestamp": "9" * 30}, "not the manifest.json of an S3 Inventory"),
        ({"fileFormat": "Parquet"}, "list cannot be read as Parquet of an inventory"),
        ({"fileSchema": "Bucket, Key, Size, ETag"}, "list cannot be read as CSV of an inventory"),
        ({"fileSchema": CSV_SCHEMA.replace("Size", "Date").replace("VersionId", "Size")}, "list cannot be read as CSV"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    location = write_inventory(Location(str(tmp_path)), gzip.compress(CSV_ROWS), **changes)
    with pytest.raises(InputError, match=message) as refused:
        rows(location, "s3://songs/music")
    assert "\n" not in str(refused.value)


def test_an_inventory_need_not_say_which_versions_are_delete_markers(tmp_path: Path) -> None:
    content = to_parquet(key=["a.mp3"] * 2, size=[2, 1], e_tag=["new", "old"], is_latest=[True, False])
    location = write_inventory(Location(str(tmp_path)), content, fileFormat="Parquet")
    assert rows(location, "s3://songs") == [("a.mp3", "new", 2)]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", json.dumps({"entries": []}).encode()])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json is not the manifest\.json of an S3 Inventory"):
        open_inventory(Location(str(tmp_path / "manifest.json")))


def test_a_list_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    location = write_inventory(Location(str(tmp_path)), gzip.compress(CSV_ROWS * 1000)[:-100])
    with pytest.raises(InputError, match="list"):
        rows(location, "s3://songs")


def test_a_catalogue_on_a_disk_has_no_inventory(tmp_path: Path) -> None:
    location = write_inventory(Location(str(tmp_path)), gzip.compress(CSV_ROWS))
    with pytest.raises(InputError, match="but the catalogue is /music"):
        rows(location, "/music")
