"""List the audio files of a catalogue and join their labels: a new manifest.

All rows are in a database, which keeps what does not fit into its memory in a temporary folder. So the memory does not
depend on the size of the catalogue.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.audio.source import AUDIO_EXTENSIONS
from mtl_core.dataset.catalogue_files import Examples, LeftOut, load_files
from mtl_core.dataset.folder_labels import load_folder_labels
from mtl_core.dataset.label_file import LABEL_COLUMNS, load_labels
from mtl_core.dataset.manifest import check_ids
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST
from mtl_core.storage.inventory import Inventory
from mtl_core.storage.location import Location
from mtl_core.storage.sql import open_database, read_batches, stripped

_ROWS_PER_GROUP = 262_144
_EXTENSIONS = ", ".join(f"'{extension}'" for extension in sorted(AUDIO_EXTENSIONS))
#: `audio.source.is_audio_file` in SQL, of a row of `files`. `strlen` is in bytes, `length` in characters.
IS_AUDIO = f"""
    lower(split_part(files.path, '.', -1)) IN ({_EXTENSIONS})
    AND strlen(split_part(files.path, '.', -1)) = length(split_part(files.path, '.', -1))
    AND NOT starts_with(split_part(files.path, '/', -1), '._')
"""


@dataclass(frozen=True, kw_only=True)
class CatalogueListing:
    """What was found in a catalogue besides its tracks."""

    left_out: LeftOut
    labels_without_file: Examples  # paths in the labels that are not in the catalogue
    labels_by_likeness: Examples  # files that got the labels of a path that is written in another way
    outside_layout: Examples  # paths whose folders give no labels, if labels come from folders


def list_catalogue(
    catalogue: Location,
    labels: Location | None,
    draft: Path,
    *,
    labels_from_folders: bool = False,
    inventory: Inventory | None = None,
) -> CatalogueListing:
    """List the tracks of a catalogue, join their labels, and write the manifest.

    Args:
        catalogue: a folder or an S3 prefix; all files below it are listed.
        labels: a labels.csv (see `label_file`), or None for tracks without labels.
        draft: the file to write: the `MANIFEST` columns, then the carried columns as strings, sorted by track_id; an
            empty label is null. If an error is raised, it is not to be used.
        labels_from_folders: take the labels from the folders of each file (see `folder_labels`) instead of `labels`.
        inventory: take the files from here instead of listing the catalogue.

    Raises:
        InputError: the catalogue does not exist or has no audio file, the labels are malformed, no folder gives a
            label, or a track_id occurs twice; or as `load_files`.
    """
    without_file = by_likeness = outside_layout = Examples()
    with open_database() as database:
        names = [] if labels is None else load_labels(database, labels)
        left_out = load_files(database, catalogue, inventory)
        if labels_from_folders:
            audio_files = f"SELECT path FROM files WHERE {IS_AUDIO}"
            names = load_folder_labels(database, audio_files)
            outside_layout = Examples.of(database, f"SELECT path FROM ({audio_files}) ANTI JOIN labels USING (path)")
            if outside_layout.count and not database.sql("FROM labels LIMIT 1").fetchall():
                raise InputError(f"{catalogue}: no file lies in LANGUAGE/ARTIST/, e.g. {outside_layout.first!r}")
        elif labels is None:
            database.execute("CREATE TABLE labels (path VARCHAR, row BIGINT)")
        else:
            _match_alike(database)
            without_file = Examples.of(
                database, "SELECT path FROM unmatched WHERE path NOT IN (SELECT named FROM alike)"
            )
            by_likeness = Examples.of(database, "SELECT path FROM alike")
            database.execute("ALTER TABLE labels RENAME TO named")
            database.execute(
                "CREATE TABLE labels AS SELECT * REPLACE (coalesce(alike.path, named.path) AS path) "
                "FROM named LEFT JOIN alike ON alike.named = named.path"
            )
            database.execute("DROP TABLE named")
        n_tracks = _write_tracks(database, names, catalogue, draft)
    if not n_tracks:
        extensions = ", ".join(sorted(AUDIO_EXTENSIONS))
        raise InputError(f"{catalogue}: no audio file below it (known extensions: {extensions})")
    check_ids(pyarrow.dataset.dataset(draft), catalogue)
    return CatalogueListing(
        left_out=left_out,
        labels_without_file=without_file,
        labels_by_likeness=by_likeness,
        outside_layout=outside_layout,
    )


def _match_alike(database: duckdb.DuckDBPyConnection) -> None:
    """Find the files that unmatched labels mean: where a path in the labels is written in another way than the file's.

    Two paths are alike if they are the same in Unicode's composed form, without spaces at the ends, and without `./`.
    Only pairs count of which each path has one partner: of two files that are alike, neither is the one that was meant.

    Creates the tables `unmatched`, paths in the labels that are no file's, and `alike`: `named` in the labels, `path`
    of the file.
    """
    form = f"regexp_replace({stripped('nfc_normalize(path)')}, '^\\./', '')"
    database.execute("CREATE TABLE unmatched AS SELECT path FROM labels ANTI JOIN files USING (path)")
    database.execute("CREATE TABLE alike (named VARCHAR, path VARCHAR)")
    if database.sql("FROM unmatched LIMIT 1").fetchall():
        database.execute("CREATE TABLE unlabelled AS SELECT path FROM files ANTI JOIN labels USING (path)")
        for table in ("unmatched", "unlabelled"):
            database.execute(
                f"CREATE TABLE {table}_forms AS SELECT {form} AS form, min(path) AS path FROM {table} "
                "WHERE NOT contains(path, chr(0)) "  # nfc_normalize ends a text at its first NUL
                "GROUP BY form HAVING count(*) = 1"
            )
        database.execute(
            "INSERT INTO alike SELECT labels.path, files.path "
            "FROM unlabelled_forms AS files JOIN unmatched_forms AS labels USING (form)"
        )
        for table in ("unlabelled", "unlabelled_forms", "unmatched_forms"):
            database.execute(f"DROP TABLE {table}")


def _write_tracks(database: duckdb.DuckDBPyConnection, names: list[str], catalogue: Location, draft: Path) -> int:
    """Write the files that are tracks, with their labels. Returns how many there are.

    Args:
        names: of the columns `label_0`, `label_1` and so on of the table `labels`.
    """
    column_of = {name: f"label_{n}" for n, name in enumerate(names)}
    carried = [name for name in names if name not in LABEL_COLUMNS]
    labels = [column_of.get(name, "NULL::VARCHAR") for name in ("artist", "language", "album", *carried)]
    database.execute(
        f"""
        CREATE TABLE tracks AS
        SELECT coalesce({column_of.get("track_id", "NULL")}, files.path) AS track_id, files.path, content_id,
               size_bytes, {", ".join(f"{label} AS c{n}" for n, label in enumerate(labels))}
        FROM files LEFT JOIN labels ON labels.path = files.path
        WHERE labels.row IS NOT NULL OR ({IS_AUDIO})
        """
    )
    reader = read_batches(database, "FROM tracks ORDER BY track_id", _ROWS_PER_GROUP)
    schema = pa.schema([*MANIFEST, *(pa.field(name, pa.string()) for name in carried)])
    n_tracks = 0
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for batch in reader:
            track_id, path, *others = batch.columns
            uri = pc.binary_join_element_wise(catalogue.uri, path, "/")
            writer.write_table(pa.table([track_id, uri, *others], schema=schema), row_group_size=len(batch))
            n_tracks += len(batch)
    return n_tracks
