"""Export: the tags as one plain Parquet file, for readers without Delta."""

from mtl_core.storage.location import Location
from mtl_core.tables.data_files import active_files, write_file
from mtl_core.tables.delta import TABLE_SCHEMAS, open_table
from mtl_core.tables.rewriting import FileRemainder, read_remainder


def export_parquet(root: Location, out: Location) -> int:
    """Write the current tags of the tables at `root` to one Parquet file, atomically. Returns the number of rows."""
    table, schema = open_table(root, "tags"), TABLE_SCHEMAS["tags"]
    files = [] if table is None else active_files(table)
    tables = (rows for file in files for rows in read_remainder(root / "tags", FileRemainder(file), schema))
    return write_file(tables, out, schema).n_rows
