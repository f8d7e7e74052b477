"""Export: the tags as one plain Parquet file, for readers without Delta."""

from mtl_core.storage.location import Location
from mtl_core.tables.data_files import active_files, write_file
from mtl_core.tables.delta import TABLE_SCHEMAS, open_table
from mtl_core.tables.rewriting import iter_row_groups


def export_parquet(root: Location, out: Location) -> int:
    """Write the current tags to one Parquet file, atomically. Returns the number of rows.

    Args:
        root: of the tables.
        out: the file.
    """
    table, schema = open_table(root, "tags"), TABLE_SCHEMAS["tags"]
    files = [] if table is None else active_files(table)
    return write_file(iter_row_groups(root / "tags", files, schema), out, schema).n_rows
