"""labels.csv: which files are refused, and with which message."""

from pathlib import Path

import pytest

from mtl_core.dataset.label_file import read_label_file
from mtl_core.errors import InputError
from mtl_core.storage.location import Location


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,artist\n", "no column 'path'"),
        (b"", "no column 'path'"),
        (b"path,,artist\n", "a column has no name"),
        (b"path,uri\n", r"\['uri'\] are reserved"),
        (b"path,artist,artist\n", r"\['artist'\] occur more than once"),
        (b"path\na/one.flac\na/one.flac\n", "row 3: the path 'a/one.flac' occurs twice"),
        (b"path,artist\na/one.flac\n", "row 2: 1 cells, but the header has 2"),
        (b"path\n\xff", "not a UTF-8 CSV"),
        (b'path\n"a\n', "not a UTF-8 CSV"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_label_file(Location(str(tmp_path / "labels.csv")))


def test_rows_are_found_by_their_path_and_empty_cells_are_none(tmp_path: Path) -> None:
    """With a byte order mark, CRLF, a quoted comma, blanks around cells, and paths that are kept as they are."""
    (tmp_path / "labels.csv").write_bytes(
        b'\xef\xbb\xbfpath,artist,mood\r\n./a//1.wav,"Ada, and",\r\n\r\n b.wav , Bo ,calm'
    )
    assert read_label_file(Location(str(tmp_path / "labels.csv"))) == {
        "./a//1.wav": {"artist": "Ada, and", "mood": None},
        " b.wav ": {"artist": "Bo", "mood": "calm"},
    }


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    lyrics = "la " * 100_000
    (tmp_path / "labels.csv").write_text(f"path,lyrics\na.wav,{lyrics}\n")
    assert read_label_file(Location(str(tmp_path / "labels.csv"))) == {"a.wav": {"lyrics": lyrics.strip()}}
