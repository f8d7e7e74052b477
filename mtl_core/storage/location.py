"""Storage: a URI -> a filesystem and a path. The only place that knows S3 from a disk.

A URI is a path, `file:///path` or `s3://bucket/key`, taken as it is: never percent-decoded, never globbed. S3 is
reached with the standard AWS environment variables, `AWS_ENDPOINT_URL` among them. A file is written whole or not at
all: on S3 an object appears when its upload ends, on a disk it is renamed into place.

Contents: `Location`, and the checks at the door: a location that cannot be used -> InputError.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import posixpath
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mtl_core.errors import InputError

S3 = "s3://"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
#: Tries of one request, with exponential backoff and jitter between them: 5xx, throttling, resets and time-outs; not
#: 403 or 404.
ATTEMPTS = 8
DOOR_ATTEMPTS = 3  # enough for a store that fails now and then, few enough to give up on a dead one in 30 s
CONNECTIONS = 32  # of a process to a store, kept open: more than a worker fetches ahead


@functools.lru_cache
def _filesystem(protocol: str, attempts: int = ATTEMPTS) -> fsspec.AbstractFileSystem:
    if protocol == "file":
        return LocalFileSystem()
    import s3fs  # 0.5 s, for those who need it

    filesystem = s3fs.S3FileSystem(
        use_listings_cache=False,  # another machine's write must be seen
        config_kwargs={
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S if attempts == ATTEMPTS else CONNECT_TIMEOUT_S,
            "retries": {"mode": "standard", "max_attempts": attempts},
        },
        skip_instance_cache=True,
    )
    if attempts != ATTEMPTS:
        filesystem.retries = 1  # s3fs tries again on top of botocore
    return filesystem


class VersionConflict(Exception):  # noqa: N818 (what happened, and no error: someone else was faster)
    """A file is not what it was."""


@dataclass(frozen=True)
class Location:
    """A file or a folder, there or not.

    Args:
        uri: a path, `file://…` or `s3://bucket/key`; kept in its normal form, an absolute path or s3://….

    Raises:
        ValueError: another protocol, or no bucket.
    """

    uri: str

    def __post_init__(self) -> None:
        uri = self.uri
        if uri.startswith(S3):
            normal = S3 + uri[len(S3) :].rstrip("/")
            if not normal[len(S3) :].split("/")[0]:
                raise ValueError(f"{uri!r} names no bucket: allowed is s3://bucket/key")
        elif re.match(r"(?!file:///)\w+:/", uri):
            raise ValueError(f"{uri!r}: allowed are a path, file:///path and s3://bucket/key")
        elif "\0" in uri:
            raise ValueError(f"{uri!r} holds a NUL, which no file's name can")
        elif not uri:
            raise ValueError("an empty location: allowed are a path, file:///path and s3://bucket/key")
        elif uri.startswith("~"):
            raise ValueError(f"{uri!r}: a home is not looked up; give its path")
        else:
            normal = os.path.abspath(uri.removeprefix("file://"))  # noqa: PTH100 (no symlink is followed)
        object.__setattr__(self, "uri", normal)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri}/{name}")

    @property
    def on_s3(self) -> bool:
        return self.uri.startswith(S3)

    @property
    def name(self) -> str:
        return posixpath.basename(self.uri)

    @property
    def path(self) -> str:
        return self.uri.removeprefix(S3)

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        return _filesystem("s3" if self.on_s3 else "file")

    @property
    def arrow_filesystem(self) -> Any:
        """This location's filesystem as a `pyarrow.fs.FileSystem`."""
        import pyarrow.fs

        return (
            pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem))
            if self.on_s3
            else pyarrow.fs.LocalFileSystem()
        )

    def exists(self) -> bool:
        return bool(self.filesystem.exists(self.path))

    def read_bytes(self) -> bytes:
        once = {"max_concurrency": 1} if self.on_s3 else {}  # else s3fs asks for the size first, to fetch it in pieces
        return bytes(self.filesystem.cat_file(self.path, **once))

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Put `data` here in one step, making the folders above: no reader ever sees half of it."""
        if self.on_s3:
            self.filesystem.pipe_file(self.path, bytes(data))
            return
        with self._draft(data) as draft:
            draft.replace(self.path)

    def put_if_absent(self, data: bytes | memoryview) -> bool:
        """Put `data` here in one step if nothing is here yet, and return whether that was so: the first one stays."""
        try:
            if self.on_s3:
                self.compare_and_swap(bytes(data), None)
            else:
                with self._draft(data) as draft:
                    Path(self.path).hardlink_to(draft)
        except (VersionConflict, FileExistsError):
            return False
        return True

    @contextlib.contextmanager
    def _draft(self, data: bytes | memoryview) -> Iterator[Path]:
        """A local file beside this one that holds `data`, gone with the body's end."""
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            draft.write_bytes(data)
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def read_with_etag(self) -> tuple[bytes, str] | None:
        """What is here, and what names this version of it; None where nothing is."""
        try:
            if self.on_s3:
                with self.filesystem.open(self.path, "rb", cache_type="all") as file:
                    return bytes(file.read()), str(file.details["ETag"])
            data = Path(self.path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def compare_and_swap(self, data: bytes, version: str | None) -> str:
        """Put a small file here if `version` still is what is here (None: nothing is), and return its new version.

        Args:
            data: never the same twice, so that a writer knows its own.

        Raises:
            Changed: something else is here.
        """
        if self.on_s3:
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
            try:
                return str(self.filesystem.pipe_file(self.path, data, **condition)["ETag"])
            except FileNotFoundError:  # S3 says so where there is nothing to match
                raise VersionConflict(self.uri) from None
            except OSError as error:
                if not is_unmet_condition(error):
                    raise
            found = self.read_with_etag()  # a request whose answer was lost is sent again, and finds its own data
            if found is None or found[0] != data:
                raise VersionConflict(self.uri)
            return found[1]
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # gone with its holder, however that ends
            found = self.read_with_etag()
            if (None if found is None else found[1]) != version:
                raise VersionConflict(self.uri)
            self.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def files(self, suffix: str = "") -> list["Location"]:
        """The files directly inside, sorted by name; names starting with `_` or `.` are left out; none where nothing
        is.
        """
        return [Location(f"{self.uri}/{name}") for name in sorted(self._names()) if name.endswith(suffix)]

    def _names(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            for entry in self.filesystem.ls(self.path, detail=True):
                name = posixpath.basename(entry["name"])
                if entry["type"] == "file" and name and not name.startswith(("_", ".")) and entry["name"] != self.path:
                    yield name

    def walk(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path relative to here, what the store tells of it) of every file below, sorted by path.

        A link to a file is that file, one that leads nowhere is told as it is; links to folders are not followed.
        """
        found = self.filesystem.find(self.path, detail=True, withdirs=False)
        for path in sorted(found):
            entry = found[path]
            if entry.get("islink"):
                with contextlib.suppress(FileNotFoundError):
                    entry = self.filesystem.info(path)
            if entry["type"] in ("file", "other", "link"):
                yield path[len(self.path) + 1 :], entry

    def delete(self) -> None:
        """Remove the file here; nothing happens where none is."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.path)

    def delete_tree(self) -> None:
        """Remove everything below here; nothing happens where nothing is."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(self.path, recursive=True)


def content_id(entry: dict[str, Any]) -> str:
    """What changes when a file's bytes change: the store's etag, else size and modification time in microseconds."""
    if "ETag" in entry:
        return str(entry["ETag"]).strip('"')
    return f"{entry['size']}-{round(entry['mtime'] * 1e6)}"


def check_reachable(location: Location) -> None:
    """An impatient look at the store, so that a dead endpoint or wrong credentials end a job in seconds.

    Raises:
        InputError: the store cannot be reached, refuses the credentials, or has no such bucket.
    """
    if not location.on_s3:
        return
    filesystem = _filesystem("s3", DOOR_ATTEMPTS)
    bucket, _, key = location.path.partition("/")
    with as_input_error(location):
        try:
            filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except FileNotFoundError:
            raise InputError(f"{location}: there is no bucket {bucket!r}") from None


def check_writable(location: Location, *, folder: bool = True) -> None:
    """Whether a folder, or a file, can be made here, as far as one sees without making it.

    Raises:
        InputError: it cannot, or the store cannot be reached.
    """
    check_reachable(location)
    if location.on_s3:
        return
    path = Path(location.path)
    if path.exists() and path.is_dir() != folder:
        raise InputError(f"{location} is {'no' if folder else 'a'} folder")
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (there.is_dir() or there == path):
        raise InputError(f"{location}: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise InputError(f"{location}: {there} may not be written")


@contextlib.contextmanager
def as_input_error(location: Location) -> Iterator[None]:
    """Turn what a store says of an unusable location into an InputError that names it.

    Raises:
        InputError: nothing is there, access is denied, or the store cannot be reached.
    """
    from botocore.exceptions import BotoCoreError  # a class of errors the standard library has no name for

    endpoint = f" at {os.environ['AWS_ENDPOINT_URL']}" if location.on_s3 and "AWS_ENDPOINT_URL" in os.environ else ""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{location}: nothing is there") from None
    except PermissionError as error:
        raise InputError(
            f"{location}: access denied{endpoint} ({one_line(error)}): check the credentials and permissions"
        ) from None
    except (BotoCoreError, OSError) as error:
        raise InputError(f"{location}: cannot be reached{endpoint}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_unmet_condition(error: BaseException) -> bool:
    """Whether S3 refused an if-match or if-none-match (412, or 409 while another such request was under way)."""
    said = str(error)
    return any(part in said for part in ("pre-conditions", "PreconditionFailed", "conditional request"))
