"""Labels from the folders of a song, for data sets that have no other labels.

    LANGUAGE_<language>/ARTIST_<artist>/<song>          the layout of Singh & Biswas' data set
    <language>/<artist>/<song>                          the same without prefixes
    …/…/<album>/<song>                                  either of them, with a folder for each album

The label is the name of the folder without its prefix, unchanged. If one folder of a level has the prefix, folders of
that level without it are not labels. A path of any other depth has no labels.
"""

import duckdb

from mtl_core.storage.sql import stripped

PREFIXES = {"language": "LANGUAGE_", "artist": "ARTIST_"}


def load_folder_labels(database: duckdb.DuckDBPyConnection, paths: str) -> list[str]:
    """Create the table `labels` (see `label_file`) from the folders of some paths; those without labels are left out.

    Args:
        paths: an SQL query with one column, `path`, relative to the catalogue, with `/` between folders.

    Returns:
        The names of the label columns.
    """
    folders = f"SELECT path, string_split(path, '/') AS parts FROM ({paths})"
    has_prefix = [
        f"coalesce(bool_or(len(parts) > {level + 1} AND starts_with(parts[{level + 1}], '{prefix}')), false)"
        for level, prefix in enumerate(PREFIXES.values())
    ]
    prefixed = database.sql(f"SELECT {', '.join(has_prefix)} FROM ({folders})").fetchall()[0]
    names = []
    for level, (prefix, is_used) in enumerate(zip(PREFIXES.values(), prefixed, strict=True)):
        folder, prefix = f"parts[{level + 1}]", prefix if is_used else ""
        name = stripped(f"substr({folder}, {len(prefix) + 1})")
        names.append(f"CASE WHEN starts_with({folder}, '{prefix}') THEN nullif({name}, '') END AS label_{level}")
    database.execute(
        f"""
        CREATE TABLE labels AS
        SELECT path, 0::BIGINT AS row, {", ".join(names)}, CASE len(parts) WHEN 4 THEN parts[3] END AS label_2
        FROM ({folders}) WHERE len(parts) IN (3, 4) AND label_0 IS NOT NULL AND label_1 IS NOT NULL
        """
    )
    return [*PREFIXES, "album"]
