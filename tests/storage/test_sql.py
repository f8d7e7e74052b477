"""SQL: what it shares with Python."""

import sys

import pyarrow as pa
import pytest

from mtl_core.storage.sql import insert, open_database, stripped


def test_sql_strips_what_python_strips() -> None:
    spaces = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if character.isspace())
    with open_database() as database:
        for text in (f"{spaces}a b{spaces}", spaces, "", "\u200b", "a\0 "):
            assert database.execute(f"SELECT {stripped('$text')}", {"text": text}).fetchall() == [(text.strip(),)]


def test_an_error_of_what_is_inserted_stays_as_it_is() -> None:
    def batches():
        yield pa.table({"n": [1, 2]})
        raise PermissionError("denied")

    with open_database() as database:
        database.execute("CREATE TABLE numbers (n BIGINT)")
        with pytest.raises(PermissionError, match="denied"):
            insert(database, "numbers", batches(), "SELECT n + $more FROM batch", {"more": 1})
        assert database.sql("FROM numbers ORDER BY n").fetchall() == [(2,), (3,)]
