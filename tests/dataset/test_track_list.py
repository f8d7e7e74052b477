"""A track list names tracks, in lines or as Parquet, and is refused with one line that says why."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.dataset import track_list
from mtl_core.errors import InputError
from mtl_core.storage.location import Location


def parquet(**columns: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", b"b\na b/\xc3\xa9.flac\n\nb\n"),
        ("ids", b"\xef\xbb\xbfb\r\na b/\xc3\xa9.flac"),
        ("ids.parquet", parquet(track_id=pa.array(["b", "a b/é.flac", "b"]), uri=pa.array(["", "", ""]))),
        ("ids.parquet", parquet(track_id=pa.array(["b", "a b/é.flac"], pa.large_string()))),
    ],
)
def test_the_ids_of_a_list_are_read_once_each(root: str, name: str, content: bytes) -> None:
    file = Location(root) / name
    file.write_bytes(content)
    assert track_list.read(file)["track_id"].to_pylist() == ["a b/é.flac", "b"]


def test_a_long_list_is_read(tmp_path: Path) -> None:
    file = Location(str(tmp_path / "ids"))
    file.write_bytes("\n".join(map(str, range(200_000))).encode())
    assert len(track_list.read(file)) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "nothing is there"),
        ("empty", b"\n\n", "no track_id is in it: one a line is needed"),
        ("latin", b"a\n\xe9\n", "line 2 is not UTF-8"),
        ("x.parquet", b"a\nb\n", "is not a Parquet file"),
        ("x.parquet", parquet(id=pa.array(["a"])), "no column 'track_id', but ['id']"),
        ("x.parquet", parquet(track_id=pa.array([1])), "column 'track_id' is int64, not string"),
        ("x.parquet", parquet(track_id=pa.array(["a", None])), "1 rows without track_id"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    file = Location(str(tmp_path / name))
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        track_list.read(file)
    assert message in str(raised.value) and str(file) in str(raised.value)
