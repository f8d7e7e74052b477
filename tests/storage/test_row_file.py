"""A row file gives back the rows that were written, in any part, to many threads, and leaves no file behind."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from mtl_core.storage.row_file import RowFile

TABLE = pa.table({"n": pa.array(range(100), pa.int64()), "text": [f"row {n}" for n in range(100)]})


def written(lengths: list[int]) -> RowFile:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    batches = [TABLE.slice(start, n).to_batches()[0] for start, n in zip(starts, lengths, strict=True)]
    return RowFile.write(batches, TABLE.schema)


@pytest.mark.parametrize("lengths", [[100], [1] * 100, [7, 40, 3, 50]])
def test_every_part_has_its_rows(lengths: list[int]) -> None:
    rows = written(lengths)
    assert rows.to_table() == TABLE
    for first in range(0, 101, 6):
        for n in (None, 0, 1, 7, 41, 1000):
            part = rows.slice(first, n)
            expected = TABLE.slice(first, n)
            assert len(part) == len(expected)
            assert part.to_table() == expected
            assert part.slice(2, 9).to_table() == expected.slice(2, 9)
            assert part.select(["text"]).read_all() == expected.select(["text"])
    assert rows.slice(1000).to_table() == TABLE.slice(0, 0)


def test_no_rows_keep_their_columns() -> None:
    rows = RowFile.write([], TABLE.schema)
    assert len(rows) == 0 and rows.to_table() == TABLE.slice(0, 0)
    assert rows.slice(0, 5).select(["n"]).read_all().schema.names == ["n"]


def test_threads_share_a_file() -> None:
    rows = written([10] * 10)
    with ThreadPoolExecutor(8) as pool:
        tables = pool.map(lambda first: (first, rows.slice(first % 90, 10).to_table()), range(500))
        assert all(table == TABLE.slice(first % 90, 10) for first, table in tables)


def test_the_file_has_no_name_and_goes_with_its_last_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = written([100])
    part = rows.slice(90)
    del rows
    assert not any(tmp_path.iterdir())
    assert part.to_table() == TABLE.slice(90)
    del part
    opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [path for path in opened if path.startswith(str(tmp_path))]
