"""Planning: which tracks of a manifest are still to be tagged, and for which of them the table holds the embedding."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location
from mtl_core.storage.sql import fetch_table, open_database, scan_columns
from mtl_core.tables import forgotten
from mtl_core.tables.data_files import DataFile, active_files
from mtl_core.tables.delta import TABLE_SCHEMAS, open_dataset, open_table


def plan_tracks(
    manifest: pa.Table | pyarrow.dataset.Dataset,
    root: Location,
    model_id: str,
    *,
    retry_failed: bool,
    skipped: pa.Table | None = None,
) -> pa.Table:
    """The tracks that have neither tags nor a permanent failure with the same content and the same model.

    Forgotten tracks are left out.

    Args:
        manifest: as `manifest.scan` or `manifest.read` returns it.
        model_id: of the model to tag with.
        retry_failed: include tracks that failed permanently.
        skipped: the forgotten tracks, of `forgotten.find` for this manifest; default: they are found here.

    Returns:
        track_id, uri, content_id, size_bytes, attempts (int32, earlier failures of the same content and model) and
        first_run_id (of the first of these, or null), sorted by track_id. The table is memory-mapped from a file.
    """
    skipped = forgotten.find(manifest, root) if skipped is None else skipped
    with open_database() as connection:
        connection.register("skipped", skipped)
        connection.register("manifest", scan_columns(manifest, ["track_id", "uri", "content_id", "size_bytes"]))
        connection.register("tags", _rows_of_model(root, "tags", model_id, ["track_id", "content_id"]))
        columns = ["track_id", "content_id", "attempts", "permanent", "run_id", "first_run_id"]
        connection.register("failed", _rows_of_model(root, "failures", model_id, columns))
        return fetch_table(
            connection,
            """
            SELECT m.track_id, m.uri, m.content_id, m.size_bytes, coalesce(f.attempts, 0)::INTEGER AS attempts,
                   coalesce(f.first_run_id, f.run_id) AS first_run_id
            FROM manifest m
            ANTI JOIN skipped s ON m.track_id = s.track_id
            ANTI JOIN tags t ON m.track_id = t.track_id AND m.content_id IS NOT DISTINCT FROM t.content_id
            LEFT JOIN failed f ON m.track_id = f.track_id AND m.content_id IS NOT DISTINCT FROM f.content_id
            WHERE $retry_failed OR f.permanent IS NOT TRUE
            ORDER BY m.track_id
            """,
            {"retry_failed": retry_failed},
        )


def summarise(tracks: pa.Table, root: Location, model_id: str) -> dict[str, tuple[int, int, float]]:
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
        rows = connection.execute(
            """
            SELECT CASE WHEN p.attempts > 0 THEN 'failed before'
                        WHEN t.track_id IS NULL AND f.track_id IS NULL THEN 'new'
                        WHEN p.content_id IS NOT DISTINCT FROM coalesce(t.content_id, f.content_id)
                             AND coalesce(t.model_id, f.model_id) <> $model THEN 'of another model'
                        ELSE 'of other content' END AS reason,
                   count(*), count(t.duration_s), coalesce(sum(t.duration_s::DOUBLE) / 3600, 0)
            FROM tracks p LEFT JOIN tags t ON p.track_id = t.track_id LEFT JOIN failures f ON p.track_id = f.track_id
            GROUP BY reason ORDER BY reason
            """,
            {"model": model_id},
        ).fetchall()
    return {reason: (n, n_known, hours) for reason, n, n_known, hours in rows}


def find_embeddings(tracks: pa.Table, root: Location, *, trunk_id: str, model_id: str) -> pa.Table:
    """Those of the tracks whose embedding is in the table of tags, for the same content and of the same trunk.

    Args:
        tracks: of `plan_tracks`.
        trunk_id: of the embeddings.
        model_id: of the model to tag with; its own rows are left out.

    Returns:
        The columns of `tracks`, `file` (a path relative to the table) and `row` (int32, its number in the file), sorted
        by both. The table is memory-mapped from a file.
    """
    schema = pa.schema([("id", pa.string()), ("content", pa.string()), ("file", pa.string()), ("row", pa.int32())])

    def read(file: DataFile) -> pa.RecordBatch:
        columns = ["track_id", "content_id", "model_id", "trunk_id"]
        with (root / "tags" / file.path).open_arrow() as source:
            parquet = pq.ParquetFile(source)
            if "trunk_id" not in parquet.schema_arrow.names:  # of an older version, and without statistics
                return pa.RecordBatch.from_pylist([], schema)
            rows = parquet.read(columns, use_threads=False)
        of_trunk = pc.and_(pc.equal(rows["trunk_id"], trunk_id), pc.not_equal(rows["model_id"], model_id))
        number = np.flatnonzero(of_trunk.fill_null(False).to_numpy()).astype(np.int32)
        found = rows.select(columns[:2]).take(pa.array(number)).combine_chunks()
        ids, contents = (found[name].combine_chunks().cast(pa.string()) for name in columns[:2])
        return pa.record_batch([ids, contents, pa.repeat(pa.scalar(file.path), len(number)), pa.array(number)], schema)

    table = open_table(root, "tags")
    files = [] if table is None else [file for file in active_files(table) if _may_hold(file, trunk_id)]
    with open_database() as connection:
        connection.register("tracks", scan_columns(tracks, tracks.column_names))
        connection.register("embeddings", pa.RecordBatchReader.from_batches(schema, bounded_map(read, files, 2)))
        return fetch_table(
            connection,
            """
            SELECT t.*, e.file, e.row
            FROM tracks t JOIN embeddings e ON t.track_id = e.id AND t.content_id IS NOT DISTINCT FROM e.content
            ORDER BY e.file, e.row
            """,
        )


def _may_hold(file: DataFile, trunk_id: str) -> bool:
    """Whether the file can have rows of this trunk, by its statistics."""
    if not file.null_counts:
        return True
    first, last = file.min_values.get("trunk_id"), file.max_values.get("trunk_id")
    return first is not None and last is not None and first <= trunk_id <= last


def without_tracks(tracks: pa.Table, track_ids: pa.ChunkedArray, *, but: pa.ChunkedArray) -> pa.Table:
    """The tracks less those with some track_ids, except for `but`, sorted by track_id; memory-mapped from a file."""
    with open_database() as connection:
        connection.register("tracks", scan_columns(tracks, tracks.column_names))
        connection.register("others", pa.table({"track_id": track_ids}))
        connection.register("but", pa.table({"track_id": but}))
        return fetch_table(
            connection,
            """
            WITH others_less AS (SELECT track_id FROM others ANTI JOIN but USING (track_id))
            SELECT * FROM tracks ANTI JOIN others_less USING (track_id) ORDER BY track_id
            """,
        )


def _rows_of_model(root: Location, name: str, model_id: str, columns: list[str]) -> pa.RecordBatchReader:
    return scan_columns(_rows(root, name), columns, pyarrow.dataset.field("model_id") == model_id)


def _rows(root: Location, name: str) -> pa.Table | pyarrow.dataset.Dataset:
    table = open_table(root, name)
    schema = TABLE_SCHEMAS[name]  # a column that the table has not yet gained is null
    return schema.empty_table() if table is None else open_dataset(root / name, table, schema)
