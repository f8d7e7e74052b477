"""Location: a file or folder on a disk or on S3. No other module distinguishes the two.

A URI is a path, `file:///path` or `s3://bucket/key`. It is used as it is: never percent-decoded, never globbed.
Credentials, region and endpoint of S3 come from `storage.identity`. Every write is atomic: on S3 an object appears when
its upload ends, on a disk a file is renamed into place.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import posixpath
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mtl_core import log

S3 = "s3://"
_BUCKET = r"[A-Za-z0-9._-]+|arn:.+"  # the second is an access point's
ALLOWED = "allowed are a path, file:///path and s3://bucket/key"
_GOOGLE, _AZURE, _S3A = "Google Cloud Storage", "Azure Blob Storage", "another spelling of s3://"
_OTHER_STORES = {
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"), _AZURE),
    **dict.fromkeys(("s3a", "s3n"), _S3A),
}


@functools.lru_cache
def open_filesystem(protocol: str) -> fsspec.AbstractFileSystem:
    """The filesystem of a protocol, "file" or "s3"; one per process. Raises IdentityError as `storage.identity`."""
    if protocol == "file":
        return LocalFileSystem()
    from mtl_core.storage.s3_filesystem import S3FileSystem  # takes 0.5 s to import

    return S3FileSystem()


def _raise(error: OSError) -> None:
    raise error


def _disk_entry(filesystem: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """fsspec's entry of a file. A link that leads nowhere, or in a circle, has its own."""
    try:
        return dict(filesystem.info(path))
    except OSError:
        status = os.lstat(path)
        return {"type": "link", "size": status.st_size, "mtime": status.st_mtime}


class VersionConflict(Exception):  # noqa: N818 (an outcome, not an error: another writer was faster)
    """Raised when a conditional write finds another version than expected."""


@dataclass(frozen=True)
class Location:
    """A file or a folder. It need not exist.

    Raises:
        ValueError: the URI is not a path, `file://…` or `s3://bucket/key`.
    """

    uri: str  # stored as an absolute path or s3://…

    def __post_init__(self) -> None:
        uri = self.uri
        if uri.startswith(S3):
            normal = S3 + uri[len(S3) :].rstrip("/")
            if not re.fullmatch(_BUCKET, normal[len(S3) :].split("/")[0]):
                raise ValueError(f"{log.hide_credentials(uri)!r} names no bucket: {ALLOWED}, without credentials")
        elif scheme := re.match(r"(?!file:///)(\w+):/", uri):
            store = _OTHER_STORES.get(scheme[1].lower())
            raise ValueError(f"{uri!r}{f' is {store}' if store else ''}: {ALLOWED}")
        elif "\0" in uri:
            raise ValueError(f"{uri!r} contains a NUL: file names cannot")
        elif not uri:
            raise ValueError(f"an empty location: {ALLOWED}")
        elif uri.startswith("~"):
            raise ValueError(f"{uri!r}: ~ is not expanded; give the full path")
        else:
            normal = os.path.abspath(uri.removeprefix("file://"))  # noqa: PTH100 (symlinks are not resolved)
        object.__setattr__(self, "uri", normal)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri}/{name}")

    @property
    def on_s3(self) -> bool:
        """Whether this is an object or prefix on S3, not a path on a disk."""
        return self.uri.startswith(S3)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return posixpath.basename(self.uri)

    @property
    def path(self) -> str:
        """The path within `filesystem`: absolute on a disk, `bucket/key` on S3."""
        return self.uri.removeprefix(S3)

    @property
    def bucket(self) -> str:
        """The bucket, of a location on S3."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """The key in the bucket, of a location on S3; empty for the bucket itself."""
        return self.path.partition("/")[2]

    @property
    def prefix(self) -> str:
        """What the keys of all objects below begin with, of a location on S3."""
        return f"{self.key}/" if self.key else ""

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem."""
        return open_filesystem("s3" if self.on_s3 else "file")

    @property
    def arrow_filesystem(self) -> Any:
        """The filesystem as a `pyarrow.fs.FileSystem`."""
        import pyarrow.fs

        if self.on_s3:
            return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem))
        return pyarrow.fs.LocalFileSystem()

    def open_arrow(self) -> Any:
        """Open the file for random access as a `pyarrow.NativeFile`, a context manager."""
        return self.arrow_filesystem.open_input_file(self.path)

    def exists(self) -> bool:
        """Whether a file or folder is here."""
        return bool(self.filesystem.exists(self.path))

    def read_bytes(self) -> bytes:
        """Read the whole file."""
        # By default s3fs first requests the size, to download in parallel pieces.
        one_request = {"max_concurrency": 1} if self.on_s3 else {}
        return bytes(self.filesystem.cat_file(self.path, **one_request))

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write or replace the file atomically, creating its parent folders."""
        if self.on_s3:
            self.filesystem.pipe_file(self.path, bytes(data))
        else:
            with self.write_via() as draft:
                draft.write_bytes(data)

    def write_json(self, value: Any, *, allow_nan: bool = False) -> None:
        """Write `value` as JSON, atomically. Raises ValueError for NaN and infinities unless they are allowed."""
        self.write_bytes((json.dumps(value, indent=1, allow_nan=allow_nan) + "\n").encode())

    def put_if_absent(self, data: bytes | memoryview) -> bool:
        """Create the file atomically unless it exists. Returns whether it was created."""
        try:
            if self.on_s3:
                self.compare_and_swap(bytes(data), None)
            else:
                with self._unnamed_file() as draft:
                    draft.write_bytes(data)
                    Path(self.path).hardlink_to(draft)
        except (VersionConflict, FileExistsError):
            return False
        return True

    @contextlib.contextmanager
    def write_via(self) -> Iterator[Path]:
        """Write a large file: yields a local path to write to.

        The file appears here atomically when the body ends. If the body raises, it never appears.
        """
        if self.on_s3:
            with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
                path = Path(folder) / self.name
                yield path
                self.filesystem.put_file(str(path), self.path)
            return
        with self._unnamed_file() as draft:
            yield draft
            draft.replace(self.path)

    @contextlib.contextmanager
    def _unnamed_file(self) -> Iterator[Path]:
        """A temporary path in the folder of this local file. A file there is removed when the body ends."""
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def read_with_etag(self) -> tuple[bytes, str] | None:
        """The file's content and a tag of this version; None if there is no file."""
        try:
            if self.on_s3:
                with self.filesystem.open(self.path, "rb", cache_type="all") as file:
                    return bytes(file.read()), str(file.details["ETag"])
            data = Path(self.path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def compare_and_swap(self, data: bytes, version: str | None) -> str:
        """Replace a small file if its version is still `version`.

        Args:
            data: must never be the same twice, so that a writer recognizes its own write.
            version: the tag of `read_with_etag`; None: the file must not exist.

        Returns:
            The tag of the new version.

        Raises:
            VersionConflict: the file has another version.
        """
        if self.on_s3:
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
            try:
                return str(self.filesystem.pipe_file(self.path, data, **condition)["ETag"])
            except FileNotFoundError:  # S3's answer to IfMatch if there is no object
                raise VersionConflict(self.uri) from None
            except OSError as error:
                if not is_unmet_condition(error):
                    raise
            current = self.read_with_etag()  # a retry of a request whose answer was lost conflicts with its own write
            if current is None or current[0] != data:
                raise VersionConflict(self.uri)
            return current[1]
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when the process ends
            current = self.read_with_etag()
            if (None if current is None else current[1]) != version:
                raise VersionConflict(self.uri)
            self.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def files(self, suffix: str = "") -> list["Location"]:
        """The files directly inside this folder, sorted by name. Names that start with `_` or `.` are left out."""
        try:
            entries = self.filesystem.ls(self.path, detail=True)
        except FileNotFoundError:
            return []
        paths = (entry["name"] for entry in entries if entry["type"] == "file" and entry["name"] != self.path)
        names = sorted(posixpath.basename(path) for path in paths)
        return [self / name for name in names if name.endswith(suffix) and name and not name.startswith(("_", "."))]

    def names(self) -> set[str]:
        """The names of the files and folders directly inside this folder; empty if it does not exist."""
        try:
            paths = self.filesystem.ls(self.path, detail=False)
        except FileNotFoundError:
            return set()
        return {posixpath.basename(path.rstrip("/")) for path in paths}

    def walk(self, on_error: Callable[[OSError], None] = _raise) -> Iterator[tuple[str, dict[str, Any]]]:
        """What `entries` gives, sorted by path."""
        yield from sorted(self.entries(on_error), key=itemgetter(0))

    def entries(self, on_error: Callable[[OSError], None] = _raise) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path relative to this folder, the store's entry) of every file below, in any order.

        A link to a file gives the entry of that file. A link that cannot be followed gives its own entry. Links to
        folders are not followed.

        Args:
            on_error: gets the error of a folder on a disk that cannot be read; it is left out. By default it is raised.
        """

        def report(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # the folder has just been deleted, or was never there
                on_error(error)

        if self.on_s3:
            found = self.filesystem.find(self.path, detail=True, withdirs=False)
            yield from ((path[len(self.path) + 1 :], entry) for path, entry in found.items() if entry["type"] == "file")
            return
        # fsspec passes over the errors of folders further below
        for path in (f"{folder}/{name}" for folder, _, names in os.walk(self.path, onerror=report) for name in names):
            try:
                entry = _disk_entry(self.filesystem, path)
            except OSError as error:  # PermissionError: the folder can be listed, but not entered
                report(error)
            else:
                if entry["type"] in ("file", "other", "link"):
                    yield path[len(self.path) + 1 :], entry

    def age_s(self) -> float:
        """Seconds since the file was written, by this machine's clock. Raises FileNotFoundError where there is none."""
        return time.time() - written_at(self.filesystem.info(self.path))

    def delete(self) -> None:
        """Delete the file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.path)

    def delete_tree(self) -> None:
        """Delete everything below here, if it exists. Raises OSError if something stays."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(self.path, recursive=True)


def written_at(entry: dict[str, Any]) -> float:
    """When a file was written, in seconds since 1970, by the clock of its store."""
    return float(entry["LastModified"].timestamp() if "LastModified" in entry else entry["mtime"])


def content_id(entry: dict[str, Any]) -> str:
    """A tag that changes when a file's bytes change: the store's ETag, or the size and the time of change in µs."""
    if "ETag" in entry:
        return str(entry["ETag"]).strip('"')
    return f"{entry['size']}-{round(entry['mtime'] * 1e6)}"


def is_unmet_condition(error: BaseException) -> bool:
    """Whether S3 refused an If-Match or If-None-Match (412, or 409 during another conditional request)."""
    message = str(error)
    return any(text in message for text in ("pre-conditions", "PreconditionFailed", "conditional request"))
