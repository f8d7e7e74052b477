"""Planning: which tracks of a manifest are still to be tagged."""

import pyarrow as pa
import pyarrow.dataset

from mtl_core.storage.location import Location
from mtl_core.storage.sql import fetch_table, open_database, scan_columns
from mtl_core.tables.delta import TABLE_SCHEMAS, open_table


def plan_tracks(
    manifest: pa.Table | pyarrow.dataset.Dataset, root: Location, model_id: str, *, retry_failed: bool
) -> pa.Table:
    """The tracks that have neither tags nor a permanent failure with the same content and the same model.

    Args:
        manifest: as `manifest.scan` or `manifest.read` returns it.
        model_id: of the model to tag with.
        retry_failed: include tracks that failed permanently.

    Returns:
        track_id, uri, content_id, size_bytes, attempts (int32, earlier failures of the same content and model), sorted
        by track_id. The table is memory-mapped from a file.
    """
    with open_database() as connection:
        connection.register("manifest", scan_columns(manifest, ["track_id", "uri", "content_id", "size_bytes"]))
        connection.register("tags", _rows_of_model(root, "tags", model_id, ["track_id", "content_id"]))
        columns = ["track_id", "content_id", "attempts", "permanent"]
        connection.register("failed", _rows_of_model(root, "failures", model_id, columns))
        return fetch_table(
            connection,
            """
            SELECT m.track_id, m.uri, m.content_id, m.size_bytes, coalesce(f.attempts, 0)::INTEGER AS attempts
            FROM manifest m
            ANTI JOIN tags t ON m.track_id = t.track_id AND m.content_id IS NOT DISTINCT FROM t.content_id
            LEFT JOIN failed f ON m.track_id = f.track_id AND m.content_id IS NOT DISTINCT FROM f.content_id
            WHERE $retry_failed OR f.permanent IS NOT TRUE
            ORDER BY m.track_id
            """,
            {"retry_failed": retry_failed},
        )


def _rows_of_model(root: Location, name: str, model_id: str, columns: list[str]) -> pa.RecordBatchReader:
    table = open_table(root, name)
    rows = TABLE_SCHEMAS[name].empty_table() if table is None else table.to_pyarrow_dataset()
    return scan_columns(rows, columns, pyarrow.dataset.field("model_id") == model_id)
