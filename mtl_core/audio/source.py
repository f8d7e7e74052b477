"""Track source: a track's audio as its storage holds it, ready for the decoder; what goes wrong is a TrackError."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mtl_core.errors import TrackError
from mtl_core.storage.location import Location, content_id, is_unmet_condition, one_line

#: An object up to this size is fetched by one request; a larger one is read by range, so that memory stays bounded.
WHOLE_BYTES = 64 * 2**20
RANGE_BYTES = 8 * 2**20

#: Files with these extensions are tracks.
AUDIO_EXTENSIONS = frozenset(
    "aac aif aifc aiff alac ape au caf flac m4a m4b mka mp1 mp2 mp3 mp4 mpc oga ogg opus ra rf64 snd spx tta voc w64"
    " wav wave weba webm wma wv".split()
)

#: A path on a local disk; the bytes of an object of at most `WHOLE_BYTES`; a seekable file that reads a larger one by
#: range.
Source = bytes | str | BinaryIO


def is_audio_file(path: str) -> bool:
    """Whether a path has one of `AUDIO_EXTENSIONS`."""
    return path.rpartition(".")[2].lower() in AUDIO_EXTENSIONS


def open_track(uri: str, expected_content_id: str | None = None) -> Source:
    """A track's audio, ready for the decoder.

    Args:
        uri: of the manifest.
        expected_content_id: of the manifest; None where it has none.

    Raises:
        TrackError: fetch not_found, forbidden, unavailable, or changed since the manifest was built.
    """
    try:
        location = Location(uri)
    except ValueError as error:
        raise TrackError("fetch", "not_found", str(error)) from None
    with as_fetch_error(uri):
        if location.on_s3:
            return _open_object(location, expected_content_id)
        entry = location.filesystem.info(location.path)
        if entry["type"] != "file":
            raise TrackError("fetch", "not_found", f"{uri} is no file but a {entry['type']}")
        _check_unchanged(uri, content_id(entry), expected_content_id)
        with Path(location.path).open("rb"):  # permissions are a matter of fetching, not of decoding
            return location.path


def _check_unchanged(uri: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise TrackError("fetch", "changed", f"{uri} is {found}, the manifest has {expected}")


def _open_object(location: Location, expected: str | None) -> bytes | BinaryIO:
    """One request: the head of its answer says whether its body is wanted."""
    from fsspec.asyn import sync
    from s3fs.core import S3_RETRYABLE_ERRORS

    filesystem, (bucket, _, key) = location.filesystem, location.path.partition("/")
    if not key:
        raise TrackError("fetch", "not_found", f"{location} is no file but a bucket")
    for number in range(1, filesystem.retries + 1):
        answer = filesystem.call_s3("get_object", Bucket=bucket, Key=key)
        found, large = content_id(answer), answer["ContentLength"] > WHOLE_BYTES
        wanted = not large and expected in (None, found)
        try:
            data: bytes = sync(filesystem.loop, _body, answer["Body"], wanted)
            break
        except S3_RETRYABLE_ERRORS as error:  # the request was answered, but its body was cut short
            if number == filesystem.retries:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(0.1 * 2**number)
    _check_unchanged(location.uri, found, expected)
    if not large:
        return data
    file = filesystem.open(location.path, "rb", block_size=RANGE_BYTES)
    _check_unchanged(location.uri, content_id(file.details), expected)  # its ranges are of what is there now
    return io.BufferedReader(_RangedFile(file, location.uri))


async def _body(body: Any, wanted: bool) -> bytes:
    """What an answer carries; where it is not wanted its connection is given up."""
    try:
        return bytes(await body.read()) if wanted else b""
    finally:
        body.close()


@contextlib.contextmanager
def as_fetch_error(uri: str) -> Iterator[None]:
    """Turn what a store says of a track's bytes into a TrackError of stage fetch."""
    from botocore.exceptions import BotoCoreError
    from fsspec.exceptions import FSTimeoutError

    try:
        yield
    except FileNotFoundError as error:
        raise TrackError("fetch", "not_found", f"{uri}: {one_line(error)}") from None
    except PermissionError as error:
        raise TrackError("fetch", "forbidden", f"{uri}: {one_line(error)}") from None
    except (BotoCoreError, FSTimeoutError, OSError) as error:
        changed = is_unmet_condition(error)
        raise TrackError("fetch", "changed" if changed else "unavailable", f"{uri}: {one_line(error)}") from None


class _RangedFile(io.RawIOBase):
    """A remote file whose reads fail as a track's fetch, so that the decoder is not blamed for the network."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file, self._uri = file, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with as_fetch_error(self._uri):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
