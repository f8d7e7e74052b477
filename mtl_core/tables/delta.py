"""Delta: the two tables of a catalogue, `OUT/tags` and `OUT/failures`. Both are Delta tables: Parquet files and a log.

A track is always in at least one of the two tables. During a commit it can briefly be in both. Memory does not grow
with the tables. A table that is older than a column of its schema gains the column with the first commit of a run; the
column is null in older rows. A table that is newer than this program is refused.

In this package, `root` is the folder of both tables, a table's `name` is a key of `TABLE_SCHEMAS`, and `check_lease`
raises if the lease is lost.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import CommitProperties, Transaction

from mtl_core.errors import InputError, RunError, one_line
from mtl_core.schema import FAILURES, SINCE, TAGS
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.identity import ATTEMPTS, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, current_identity
from mtl_core.storage.location import S3, Location
from mtl_core.tables.data_files import DataFile, active_files, flat_columns

TABLE_SCHEMAS = {"failures": FAILURES, "tags": TAGS}  # in the order of commit
#: Application id of all our transactions. Two transactions with the same id that start from the same version conflict.
APPLICATION = "tag_catalogue"
#: Key in the log, with each commit of a run: the version of the other table at that moment.
OTHER_TABLE_VERSION = "other_table_version"
_REFUSED = r"[\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}"  # surrogates stand for bytes that are no UTF-8
_REFUSED_ON_DISK, _REFUSED_ON_S3 = rf"{_REFUSED}|\\", rf"{_REFUSED}|[#?]|//"


def open_table(root: Location, name: str, version: int | None = None) -> DeltaTable | None:
    """Open one of our tables at a version, or at the latest; None if it does not exist. Raises as `open_delta`."""
    return open_delta(root / name, version)


def open_delta(location: Location, version: int | None = None) -> DeltaTable | None:
    """Open any Delta table at a version, or at the latest; None if it does not exist.

    Raises:
        InputError: the log does not have this version any more, or deltalake would take the name of the folder for that
            of another place.
    """
    _check_name(location)
    options = storage_options(location)
    if not DeltaTable.is_deltatable(location.uri, options):
        return None
    try:
        return DeltaTable(location.uri, version, storage_options=options)
    except DeltaError as error:
        if version is None:
            raise
        raise InputError(
            f"{location}: version {version} cannot be opened; if a --purge-now was interrupted, repeat it: "
            f"{one_line(error)}"
        ) from None


def open_tables(root: Location) -> dict[str, DeltaTable]:
    """The tables that exist, at their latest versions, in the order of commit. Raises InputError if there is none."""
    tables = {name: table for name in TABLE_SCHEMAS if (table := open_table(root, name)) is not None}
    if not tables:
        raise InputError(f"{root}: there are no tables of tags and failures")
    return tables


def _check_name(location: Location) -> None:
    """deltalake takes a location for a URL, though not wholly: it decodes, drops or cuts off these characters."""
    refused = _REFUSED_ON_S3 if location.on_s3 else _REFUSED_ON_DISK
    if found := re.search(refused, location.path):
        raise InputError(
            f"{location}: {found[0]!r} cannot be in the name of a folder of tables, because other programs would look "
            "for them elsewhere; allowed are names of UTF-8 without control characters, %20 and its like, and "
            + ("#, ? and //" if location.on_s3 else "backslashes")
        )


def storage_options(root: Location) -> dict[str, str]:
    """What deltalake needs to open a table: the identity of this moment. It does not renew it.

    deltalake adds the AWS variables of the environment that are not named here. Without this, it would find other
    credentials than s3fs, or another endpoint: it does not know `endpoint_url` of a profile.
    """
    if not root.on_s3:
        return {}
    now = current_identity()
    return {
        "AWS_ENDPOINT_URL": now.endpoint_url,
        "AWS_REGION": now.region,
        "AWS_ACCESS_KEY_ID": now.access_key,
        "AWS_SECRET_ACCESS_KEY": now.secret_key,
        "allow_http": "true",  # an endpoint without TLS
    } | ({"AWS_SESSION_TOKEN": now.token} if now.token else {})


def open_dataset(location: Location, table: DeltaTable, schema: pa.Schema | None = None) -> pyarrow.dataset.Dataset:
    """The rows of an open table at its version; `schema` may have columns that the table lacks, which are null.

    Files are read through Arrow's own filesystem, with the identity of this moment. Arrow's threads read ahead. If they
    hold Python objects, as with deltalake's own filesystem or s3fs, they can abort a process that ends right after a
    scan, or keep it from ending.
    """
    if location.on_s3:
        now = current_identity()
        files = pyarrow.fs.S3FileSystem(
            access_key=now.access_key,
            secret_key=now.secret_key,
            session_token=now.token,
            region=now.region,
            endpoint_override=now.endpoint_url,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=READ_TIMEOUT_S,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(ATTEMPTS),
        )
    else:
        files = pyarrow.fs.LocalFileSystem()
    return table.to_pyarrow_dataset(schema=schema, filesystem=pyarrow.fs.SubTreeFileSystem(location.path, files))


class Snapshot(NamedTuple):
    """Both tables at one moment; None for one that does not exist yet."""

    tags: DeltaTable | None
    failures: DeltaTable | None


def read_snapshot(root: Location) -> Snapshot:
    """Open both tables as they were at one moment.

    Two tables cannot be opened in one step. If a commit lands between opening the two, a reader could miss a track that
    moved from failures to tags. So the tags are opened again afterwards, until their version has not changed. The
    snapshot stays readable until `maintenance.clean` deletes its files, days later. If a commit is under way, a track
    can be in both tables; the later of `tagged_at` and `failed_at` is the current state.
    """
    while True:
        tags, failures, tags_again = (open_table(root, name) for name in ("tags", "failures", "tags"))
        if table_version(tags) == table_version(tags_again):
            return Snapshot(tags, failures)


def table_version(table: DeltaTable | None) -> int | None:
    """The version of an open table; None if it does not exist."""
    return None if table is None else table.version()


def require_known_columns(root: Location) -> None:
    """Raise InputError if a newer version of mtl_core has added a column to one of the tables, or one does not open."""
    for name in TABLE_SCHEMAS:
        with as_input_error(root / name):
            table = open_table(root, name)
        if table is not None:
            _require_known_columns(table, root, name)


def _require_known_columns(table: DeltaTable, root: Location, name: str) -> None:
    for field in pa.schema(table.schema().to_arrow()):
        if field.name not in TABLE_SCHEMAS[name].names:
            version = (field.metadata or {}).get(SINCE, b"").decode()
            needed = f"mtl_core {version} or newer" if version else "the version of mtl_core that added it"
            raise InputError(f"{root / name}: this version does not know the column {field.name!r}: use {needed}")


def open_to_write(root: Location, name: str, check_lease: Callable[[], None]) -> DeltaTable:
    """Open a table to add a run's rows: create it if it does not exist, and add the columns that it lacks.

    A column is added by two commits, before the rows of the run. The first one adds the column's statistics (null in
    every row) to all files; readers ignore them. The second one adds the column. So filters on the column find older
    rows as soon as it exists, see `DataFile`. If the run is killed in between, the next run repeats the first commit.

    Raises:
        InputError: the table is newer than this program.
        RunError: another program changed the table at the same time.
        ValueError: a new column of `TABLE_SCHEMAS` is not nullable.
    """
    schema = TABLE_SCHEMAS[name]
    table = open_table(root, name) or DeltaTable.create(
        (root / name).uri, schema, mode="ignore", storage_options=storage_options(root)
    )
    _require_known_columns(table, root, name)
    present = {field.name for field in table.schema().fields}
    new = pa.schema([field for field in schema if field.name not in present])
    if not len(new):
        return table
    required = [field.name for field in new if not field.nullable]
    if required:
        raise ValueError(f"columns {required} of {name} are not nullable: only nullable columns can be added")
    about = {"added_columns": ", ".join(new.names)}
    files = [file.with_null_columns(flat_columns(new)) for file in active_files(table)]
    commit_actions(table, [], files, check_lease, about=about, data_change=False)
    table.update_incremental()
    check_lease()
    try:
        table.alter.add_columns(Schema.from_arrow(new).fields, commit_properties=_commit_properties(table, about))
    except CommitFailedError as error:
        table.update_incremental()
        if not set(new.names) <= {field.name for field in table.schema().fields}:
            raise _conflict(table, error) from None
    return table


def commit_actions(
    table: DeltaTable,
    removed: list[DataFile],
    added: list[DataFile],
    check_lease: Callable[[], None],
    *,
    about: dict[str, Any],
    transaction: str | None = None,
    data_change: bool = True,
) -> None:
    """Remove files from a table and add others in one transaction. It fails if the table changed since it was opened.

    Args:
        table: at the version for which `removed` and `added` were determined.
        removed, added: files. If an added file is in the table already, its statistics are replaced.
        about: stored in the log.
        transaction: a name stored in the log, by which a later run can see that this was committed.
        data_change: False if the rows stay the same.

    Raises:
        RunError: another program changed the table.
    """
    if not removed and not added:
        return
    _commit(table, removed, added, check_lease, about=about, transaction=transaction, data_change=data_change)


def commit_nothing(table: DeltaTable, check_lease: Callable[[], None], *, about: dict[str, Any]) -> None:
    """Add a version that changes no row, only to store `about` in the log. Raises RunError as `commit_actions`."""
    _commit(table, [], [], check_lease, about=about, transaction=None, data_change=False)


def _commit(
    table: DeltaTable,
    removed: list[DataFile],
    added: list[DataFile],
    check_lease: Callable[[], None],
    *,
    about: dict[str, Any],
    transaction: str | None,
    data_change: bool,
) -> None:
    check_lease()
    table = _with_current_identity(table)
    removals = [file.remove(data_change=data_change) for file in removed]
    additions = [file.add(data_change=data_change) for file in added]
    try:
        table.create_write_transaction(
            [*removals, *additions],
            mode="append",
            schema=table.schema(),
            commit_properties=_commit_properties(table, about, transaction),
        )
    except CommitFailedError as error:
        # A request whose answer was lost is sent again, and then conflicts with its own entry in the log.
        table.update_incremental()
        if transaction is None or table.transaction_version(transaction) is None:
            raise _conflict(table, error) from None


def _with_current_identity(table: DeltaTable) -> DeltaTable:
    """The table at the same version, opened anew where its credentials may have expired during a long rewrite."""
    at = Location(table.table_uri) if table.table_uri.startswith(S3) else None
    if at is None or not current_identity().expires:
        return table
    return DeltaTable(at.uri, table.version(), storage_options=storage_options(at))


def _commit_properties(table: DeltaTable, about: dict[str, Any], transaction: str | None = None) -> CommitProperties:
    """Let a commit fail if another one of ours was made since `table` was opened."""
    transactions = [Transaction(APPLICATION, (table.transaction_version(APPLICATION) or 0) + 1)]
    if transaction is not None:
        transactions.append(Transaction(transaction, 1))
    return CommitProperties(app_transactions=transactions, custom_metadata=about, max_commit_retries=0)


def _conflict(table: DeltaTable, error: CommitFailedError) -> RunError:
    return RunError(f"{table.table_uri}: another program changed the table at the same time: {error}")
