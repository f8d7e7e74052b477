"""Night columns: what the rows that a run has written look like, in counts and moments."""

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_core.storage.location import Location
from mtl_core.storage.sql import open_database, scan_columns
from mtl_core.tables.data_files import DataFile, dataset_of

LABELS = ("artist", "language")
VALUES = ("artist_confidence", "language_confidence", "duration_s")


@dataclass(frozen=True, kw_only=True)
class NightColumns:
    """Counts and moments of rows."""

    n_rows: int
    n_without_sound: int
    labels: dict[str, list[tuple[str | None, int]]]  # column -> its values and their counts, the most frequent first
    moments: dict[str, tuple[int, float, float]]  # column -> number of values, mean and standard deviation


def read_night(root: Location, files: Sequence[DataFile]) -> NightColumns:
    """Sum up the rows of some data files of the table of tags at `root`. They are read once."""
    columns = [*LABELS, *VALUES, "n_voted"]
    with open_database() as connection:
        if not files:
            return NightColumns(n_rows=0, n_without_sound=0, labels={name: [] for name in LABELS}, moments={})
        connection.register("rows", scan_columns(dataset_of(root, files), columns))
        connection.execute("CREATE TABLE night AS SELECT * FROM rows")
        n_rows, n_silent = connection.sql("SELECT count(*), count(*) FILTER (n_voted = 0) FROM night").fetchall()[0]
        labels = {
            name: connection.sql(
                f"SELECT {name}, count(*) AS n FROM night GROUP BY 1 ORDER BY n DESC, {name}"
            ).fetchall()
            for name in LABELS
        }
        moments = {}
        for name in VALUES:
            of = f"SELECT count({name}), avg({name}), stddev_pop({name}) FROM night"
            n, mean, std = connection.sql(of).fetchall()[0]
            if n:
                moments[name] = (n, float(mean), float(std))
    return NightColumns(n_rows=n_rows, n_without_sound=n_silent, labels=labels, moments=moments)
