"""Planning: which tracks of a manifest are still to be tagged, and for which of them the table holds the embedding."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.sql import create_table, fetch_rows, open_database, scan_columns
from mtl_core.tables import forgotten
from mtl_core.tables.data_files import DataFile, active_files
from mtl_core.tables.delta import TABLE_SCHEMAS, open_dataset, open_table

_EMBEDDING_ROWS = pa.schema([("id", pa.string()), ("content", pa.string()), ("file", pa.int32()), ("row", pa.int32())])


def plan_tracks(
    manifest: pa.Table | pyarrow.dataset.Dataset,
    root: Location,
    model_id: str,
    *,
    retry_failed: bool,
    skipped: pa.Table | None = None,
) -> RowFile:
    """The tracks that have neither tags nor a permanent failure with the same content and the same model.

    Forgotten tracks are left out.

    Args:
        manifest: as `manifest.scan` or `manifest.read` returns it.
        model_id: of the model to tag with.
        retry_failed: include tracks that failed permanently.
        skipped: the forgotten tracks, of `forgotten.find` for this manifest; default: they are found here.

    Returns:
        track_id, uri, content_id, size_bytes, attempts (int32, earlier failures of the same content and model) and
        first_run_id (of the first of these, or null), sorted by track_id.
    """
    skipped = forgotten.find(manifest, root) if skipped is None else skipped
    with open_database() as connection:
        connection.register("skipped", skipped)
        connection.register("manifest", scan_columns(manifest, ["track_id", "uri", "content_id", "size_bytes"]))
        connection.register("tags", _rows_of_model(root, "tags", model_id, ["track_id", "content_id"]))
        columns = ["track_id", "content_id", "attempts", "permanent", "run_id", "first_run_id"]
        connection.register("failed", _rows_of_model(root, "failures", model_id, columns))
        connection.execute(
            """
            CREATE TABLE untagged AS SELECT m.* FROM manifest m
            ANTI JOIN skipped s ON m.track_id = s.track_id
            ANTI JOIN tags t ON m.track_id = t.track_id AND m.content_id IS NOT DISTINCT FROM t.content_id
            """
        )
        connection.execute(
            """
            CREATE TABLE planned AS
            SELECT u.*, coalesce(f.attempts, 0)::INTEGER AS attempts, coalesce(f.first_run_id, f.run_id) AS first_run_id
            FROM untagged u
            LEFT JOIN failed f ON u.track_id = f.track_id AND u.content_id IS NOT DISTINCT FROM f.content_id
            WHERE $retry_failed OR f.permanent IS NOT TRUE
            """,
            {"retry_failed": retry_failed},
        )
        connection.execute("DROP TABLE untagged")
        return fetch_rows(connection, "SELECT * FROM planned ORDER BY track_id")


def summarise(tracks: RowFile, root: Location, model_id: str) -> dict[str, tuple[int, int, float]]:
    """Why tracks are planned: reason -> tracks, those of them whose length an earlier run has found, and their hours.

    Args:
        tracks: of `plan_tracks`.
        model_id: of the model to tag with.
    """
    with open_database() as connection:
        connection.register("tracks", scan_columns(tracks, ["track_id", "content_id", "attempts"]))
        for name, columns in (("tags", ["track_id", "content_id", "model_id", "duration_s"]),
                              ("failures", ["track_id", "content_id", "model_id"])):  # fmt: skip
            connection.register(name, scan_columns(_rows(root, name), columns))
        connection.execute(
            """
            CREATE TABLE in_tags AS
            SELECT p.*, t.content_id AS tagged, t.model_id, t.duration_s
            FROM tracks p LEFT JOIN tags t ON p.track_id = t.track_id
            """
        )
        rows = connection.execute(
            """
            SELECT CASE WHEN p.attempts > 0 THEN 'failed before'
                        WHEN p.model_id IS NULL AND f.track_id IS NULL THEN 'new'
                        WHEN p.content_id IS NOT DISTINCT FROM coalesce(p.tagged, f.content_id)
                             AND coalesce(p.model_id, f.model_id) <> $model THEN 'of another model'
                        ELSE 'of other content' END AS reason,
                   count(*), count(p.duration_s), coalesce(sum(p.duration_s::DOUBLE) / 3600, 0)
            FROM in_tags p LEFT JOIN failures f ON p.track_id = f.track_id
            GROUP BY reason ORDER BY reason
            """,
            {"model": model_id},
        ).fetchall()
    return {reason: (n, n_known, hours) for reason, n, n_known, hours in rows}


class Located(NamedTuple):
    """Tracks, divided by whether the table of tags holds their embedding."""

    in_table: RowFile  # with `file` (relative to the table) and `row` (int32, in the file), unless empty; in this order
    others: RowFile  # sorted by track_id


def find_embeddings(tracks: RowFile, root: Location, *, trunk_id: str, model_id: str) -> Located:
    """Find the tracks whose embedding is in the table of tags, for the same content and of the same trunk.

    Args:
        tracks: of `plan_tracks`.
        trunk_id: of the embeddings.
        model_id: of the model to tag with; its own rows are left out.
    """
    table = open_table(root, "tags")
    files = [] if table is None else [file for file in active_files(table) if _may_hold(file, trunk_id)]
    if not files:
        return Located(in_table=tracks.slice(0, 0), others=tracks)
    rows = _rows_of_trunk(root, files, trunk_id, model_id)
    with open_database() as connection:
        connection.register("tracks", tracks.select(tracks.schema.names))
        connection.register("embeddings", pa.RecordBatchReader.from_batches(_EMBEDDING_ROWS, rows))
        connection.execute(
            """
            CREATE TABLE located AS SELECT t.*, e.file, e.row
            FROM tracks t LEFT JOIN embeddings e ON t.track_id = e.id AND t.content_id IS NOT DISTINCT FROM e.content
            """
        )
        in_order = "SELECT * FROM located WHERE file IS NOT NULL ORDER BY file, row"
        return Located(
            in_table=fetch_rows(
                connection,
                f"SELECT * REPLACE ($paths[file + 1] AS file) FROM ({in_order})",  # lists begin with 1
                {"paths": [file.path for file in files]},
            ),
            others=fetch_rows(
                connection, "SELECT * EXCLUDE (file, row) FROM located WHERE file IS NULL ORDER BY track_id"
            ),
        )


def _rows_of_trunk(root: Location, files: list[DataFile], trunk_id: str, model_id: str) -> Iterator[pa.RecordBatch]:
    """Where files of tags hold embeddings of a trunk that another model tagged: `_EMBEDDING_ROWS`, `file` by number."""

    def read(number: int) -> pa.RecordBatch:
        columns = ["track_id", "content_id", "model_id", "trunk_id"]
        with (root / "tags" / files[number].path).open_arrow() as source:
            parquet = pq.ParquetFile(source)
            if "trunk_id" not in parquet.schema_arrow.names:  # of an older version, and without statistics
                return pa.RecordBatch.from_pylist([], _EMBEDDING_ROWS)
            rows = parquet.read(columns, use_threads=False)
        of_trunk = pc.and_(pc.equal(rows["trunk_id"], trunk_id), pc.not_equal(rows["model_id"], model_id))
        row = np.flatnonzero(of_trunk.fill_null(False).to_numpy()).astype(np.int32)
        found = rows.select(columns[:2]).take(pa.array(row)).combine_chunks()
        ids, contents = (found[name].combine_chunks().cast(pa.string()) for name in columns[:2])
        return pa.record_batch([ids, contents, np.full(len(row), number, np.int32), row], _EMBEDDING_ROWS)

    return bounded_map(read, range(len(files)), 2)


def _may_hold(file: DataFile, trunk_id: str) -> bool:
    """Whether the file can have rows of this trunk, by its statistics."""
    if not file.null_counts:
        return True
    first, last = file.min_values.get("trunk_id"), file.max_values.get("trunk_id")
    return first is not None and last is not None and first <= trunk_id <= last


def merge_tracks(tracks: RowFile, others: RowFile) -> RowFile:
    """The tracks of both, with the columns of the first, sorted by track_id."""
    if not len(others):
        return tracks
    with open_database() as connection:
        create_table(connection, "merged", [tracks, others], tracks.schema.names)
        return fetch_rows(connection, "FROM merged ORDER BY track_id")


def _rows_of_model(root: Location, name: str, model_id: str, columns: list[str]) -> pa.RecordBatchReader:
    return scan_columns(_rows(root, name), columns, pyarrow.dataset.field("model_id") == model_id)


def _rows(root: Location, name: str) -> pa.Table | pyarrow.dataset.Dataset:
    table = open_table(root, name)
    schema = TABLE_SCHEMAS[name]  # a column that the table has not yet gained is null
    return schema.empty_table() if table is None else open_dataset(root / name, table, schema)
