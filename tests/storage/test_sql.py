"""SQL: what it shares with Python."""

import errno
import sys

import pyarrow as pa
import pytest

from mtl_core.storage import sql
from mtl_core.storage.sql import insert, open_database, stripped


def test_sql_strips_what_python_strips() -> None:
    spaces = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if character.isspace())
    with open_database() as database:
        for text in (f"{spaces}a b{spaces}", spaces, "", "\u200b", "a\0 "):
            assert database.execute(f"SELECT {stripped('$text')}", {"text": text}).fetchall() == [(text.strip(),)]


@pytest.mark.parametrize("fetched", ["in the statement", "as a stream"])
def test_a_full_disk_is_named(fetched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "MEMORY", "40MiB")
    query = "SELECT md5(i::VARCHAR) || md5((i + 1)::VARCHAR) AS text FROM range(2_000_000) r(i) ORDER BY text"
    with pytest.raises(OSError, match=r"No space left on device: '.*mtl-") as raised, open_database() as database:
        database.execute("SET max_temp_directory_size = '4MB'")
        if fetched == "as a stream":
            sql.fetch_rows(database, query)
        else:
            database.execute(f"CREATE TABLE texts AS {query}")
    assert raised.value.errno == errno.ENOSPC


def test_an_error_of_what_is_inserted_stays_as_it_is() -> None:
    def batches():
        yield pa.table({"n": [1, 2]})
        raise PermissionError("denied")

    with open_database() as database:
        database.execute("CREATE TABLE numbers (n BIGINT)")
        with pytest.raises(PermissionError, match="denied"):
            insert(database, "numbers", batches(), "SELECT n + $more FROM batch", {"more": 1})
        assert database.sql("FROM numbers ORDER BY n").fetchall() == [(2,), (3,)]


def test_a_join_builds_its_right_side_although_streams_have_no_statistics() -> None:
    with open_database() as database:
        for name in ("tracks", "done"):
            database.register(name, pa.table({"track_id": ["a"], "uri": ["/a"]}).to_reader())
        database.register("skipped", pa.table({"track_id": pa.array([], pa.string())}))
        joins = "ANTI JOIN skipped USING (track_id) ANTI JOIN done USING (track_id)"
        ((_, plan),) = database.execute(f"EXPLAIN SELECT uri FROM tracks {joins}").fetchall()
        assert "ANTI" in plan and "RIGHT" not in plan
