"""Checks of a location before a job starts work: a location that cannot be used is an `InputError`.

On S3 each permission is asked for by a request that cannot change anything: an object that is not there is read and
deleted, and an object is written under a condition that does not hold. S3 decides about the permission first (403), and
about the rest only then.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl_core.errors import InputError, one_line
from mtl_core.storage import identity
from mtl_core.storage.location import Location

#: A name below a folder of which no object exists.
_ABSENT = "_access_check"
#: The answers to a request that is allowed: there is no such object, the condition does not hold, or the store does not
#: know conditions.
_ALLOWED_STATUSES = (404, 409, 412, 501)
_ALLOWED_CODES = ("BadDigest", "InvalidDigest")
#: A digest that no body of one byte has. A store that ignores conditions refuses the write because of it.
_WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="
_NO_VERSION = '"00000000000000000000000000000000"'


def check_reachable(location: Location, *, reads: bool = True) -> None:
    """Find out whether a file or folder can be listed and read, with short timeouts: three requests on S3.

    Args:
        reads: False where only names are needed.

    Raises:
        InputError: the store cannot be reached, has no such bucket, refuses the credentials, or does not allow
            `s3:ListBucket` or `s3:GetObject`; the message names each permission that is missing.
    """
    if location.on_s3:
        _require([*_missing_to_list(location), *(_missing_to_read(location) if reads else ())], location)


def check_writable(location: Location, *, folder: bool = True) -> None:
    """Raise InputError unless a file can be created here; or files below a folder be listed, read, created, deleted.

    Nothing is created. On S3 this takes two requests for a file, and five for a folder.
    """
    if location.on_s3:
        listing = _missing_to_list(location) if folder else ()
        _require([*listing, *_missing_to_read(location, folder), *_missing_to_write(location, folder)], location)
        return
    path = Path(location.path)
    if path.exists() and path.is_dir() != folder:
        raise InputError(f"{location} is {'not a' if folder else 'a'} folder")
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (existing.is_dir() or existing == path):
        raise InputError(f"{location}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{location}: {existing} is not writable")


def check_any_readable(objects: Sequence[Location]) -> None:
    """Raise InputError if objects on S3 are given, and none of them may be read. The first that may is enough."""
    for location in objects:
        with as_input_error(location):
            if _may(location, "head_object", Bucket=location.bucket, Key=location.key):
                return
    if objects:
        first = _arn(objects[0].bucket, objects[0].key)
        _require([f"s3:GetObject on {first}, nor on any of {len(objects)} tracks"], objects[0])


def _require(missing: list[str], location: Location) -> None:
    if missing:
        raise InputError(f"{location}: the identity of this process may not {', '.join(missing)}")


def _missing_to_list(location: Location) -> Iterator[str]:
    with as_input_error(location):
        if not _may(location, "list_objects_v2", Bucket=location.bucket, Prefix=location.prefix, MaxKeys=1):
            yield f"s3:ListBucket on arn:aws:s3:::{location.bucket}"


def _missing_to_read(location: Location, folder: bool = True) -> Iterator[str]:
    key, inside = location.key, f"{location.prefix}{_ABSENT}"  # s3fs asks for both: is it a file or a folder?
    with as_input_error(location):
        for name in filter(None, (key, inside) if folder else (key,)):
            if not _may(location, "head_object", Bucket=location.bucket, Key=name):
                yield f"s3:GetObject on {_arn(location.bucket, name)}"


def _missing_to_write(location: Location, folder: bool) -> Iterator[str]:
    bucket, key = location.bucket, f"{location.prefix}{_ABSENT}" if folder else location.key
    with as_input_error(location):
        # Only where nothing is: a store that ignores the condition would delete the file.
        if folder and not _may(location, "delete_object", Bucket=bucket, Key=key, IfMatch=_NO_VERSION):
            yield f"s3:DeleteObject on {_arn(bucket, key)}"
        write = {"Body": b"0", "IfMatch": _NO_VERSION, "ContentMD5": _WRONG_MD5}
        if not _may(location, "put_object", Bucket=bucket, Key=key, **write):
            yield f"s3:PutObject on {_arn(bucket, key)}"


def _arn(bucket: str, key: str) -> str:
    return f"arn:aws:s3:::{bucket}/{key.removesuffix(_ABSENT)}{'*' if key.endswith(_ABSENT) else ''}"


def _may(location: Location, request: str, **arguments: Any) -> bool:
    """Whether a request is allowed. Raises InputError or OSError where the answer says something else."""
    from botocore.exceptions import ClientError

    identity.freeze_credentials()  # else a role that may not be assumed would look like a missing permission here
    try:
        getattr(identity.open_client(), request)(**arguments)
    except ClientError as error:
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            raise InputError(f"{location}: there is no bucket {arguments['Bucket']!r}") from None
        if status == 403 and code in ("AccessDenied", "403"):  # the answer to a HEAD has no code
            return False
        if status == 403:
            raise PermissionError(one_line(error)) from None
        if status not in _ALLOWED_STATUSES and code not in _ALLOWED_CODES:
            raise OSError(one_line(error)) from None
    return True


def old_object_versions(location: Location) -> str | None:
    """A sentence on older versions of objects that the bucket of `location` keeps, or may keep; None for a disk."""
    if not location.on_s3:
        return None
    bucket = location.bucket
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

    try:
        yield
    except identity.IdentityError as error:
        raise InputError(f"{location}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{location}: nothing is there") from None
    except PermissionError as error:
        raise InputError(
            f"{location}: access denied{_endpoint(location)} ({one_line(error)}): check the credentials and permissions"
        ) from None
    except (BotoCoreError, OSError) as error:
        raise InputError(f"{location}: cannot be reached{_endpoint(location)}: {one_line(error)}") from None


def _endpoint(location: Location) -> str:
    return f" at {identity.open_client().meta.endpoint_url}" if location.on_s3 else ""
