"""Checks of a location before a job starts work: a location that cannot be used is an `InputError`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mtl_core.errors import InputError, one_line
from mtl_core.storage.location import Location, open_filesystem

CHECK_ATTEMPTS = 3  # enough for a store that fails now and then, few enough to give up on a dead one within 30 s


def check_reachable(location: Location) -> None:
    """List one object with short timeouts, so that a dead endpoint or wrong credentials end a job within seconds.

    Raises:
        InputError: the store cannot be reached, refuses the credentials, or has no such bucket.
    """
    if not location.on_s3:
        return
    filesystem = open_filesystem("s3", CHECK_ATTEMPTS)
    bucket, _, key = location.path.partition("/")
    with as_input_error(location):
        try:
            filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except FileNotFoundError:
            raise InputError(f"{location}: there is no bucket {bucket!r}") from None


def check_writable(location: Location, *, folder: bool = True) -> None:
    """Raise InputError unless a folder, or a file, can be created here. Nothing is created."""
    check_reachable(location)
    if location.on_s3:
        return
    path = Path(location.path)
    if path.exists() and path.is_dir() != folder:
        raise InputError(f"{location} is {'not a' if folder else 'a'} folder")
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (existing.is_dir() or existing == path):
        raise InputError(f"{location}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{location}: {existing} is not writable")


def old_object_versions(location: Location) -> str | None:
    """A sentence on older versions of objects that the bucket of `location` keeps, or may keep; None for a disk."""
    if not location.on_s3:
        return None
    bucket = location.path.partition("/")[0]
    try:
        status = location.filesystem.call_s3("get_bucket_versioning", Bucket=bucket).get("Status")
    except (PermissionError, NotImplementedError) as error:
        return f"whether the bucket {bucket} keeps old versions of deleted objects is not known: {one_line(error)}"
    if status is None:  # versioning was never enabled
        return None
    return f"the bucket {bucket} has versioning ({status}): old versions of deleted objects stay; delete them there"


@contextlib.contextmanager
def as_input_error(location: Location) -> Iterator[None]:
    """Turn the errors of a store into an InputError: nothing is there, access is denied, or it cannot be reached."""
    from botocore.exceptions import BotoCoreError  # not an OSError: the base class of the client's own errors

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
