"""Source: a track's audio as its storage has it, ready for the decoder. What goes wrong is a TrackError."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.spec import AbstractBufferedFile

from mtl_core.audio.decoding.reach import WHOLE_S
from mtl_core.audio.flac_layout import flac_layout
from mtl_core.audio.pcm_layout import pcm_layout
from mtl_core.audio.ranged_file import HEAD_BYTES, MOST_BYTES, RangedFile, Spans
from mtl_core.errors import TrackError, one_line
from mtl_core.storage.location import Location, content_id, is_unmet_condition

#: An object up to this size is downloaded by one request. A larger one is read by range, so that memory stays bounded.
WHOLE_BYTES = MOST_BYTES
RANGE_BYTES = 8 * 2**20
#: What a request costs beside its bytes, in bytes: an object is read by range where that costs less than one request
#: for all of it. At 100 ms and 20 MB/s it takes as long as 2 MB. It costs 0.4 millionths of a dollar, as 2.6 MB do that
#: an instance ($0.68 an hour) fetches at 1.25 GB/s.
REQUEST_BYTES = 2 * 2**20
MIN_RANGED_BYTES = 5 * REQUEST_BYTES  # less can hardly pay
RANGED_EXTENSIONS = (".wav", ".wave", ".rf64", ".aif", ".aiff", ".aifc", ".flac")

#: Files with these extensions are tracks. Other files are tracks only if the labels name them.
AUDIO_EXTENSIONS = frozenset(
    "aac aif aifc aiff alac ape au caf flac m4a m4b mka mp1 mp2 mp3 mp4 mpc oga ogg opus ra rf64 snd spx tta voc w64"
    " wav wave weba webm wma wv".split()
)

#: The path of a local file; the bytes of an object of at most `WHOLE_BYTES`; or a seekable file that reads a larger
#: object by range.
Source = bytes | str | BinaryIO | RangedFile
#: (number of frames, rate in Hz) -> the stretches of a recording that will be read first
Plan = Callable[[int, int], Spans]


def is_audio_file(path: str) -> bool:
    """Whether a path has one of `AUDIO_EXTENSIONS`, and is none of the `._NAME` that macOS writes beside each NAME."""
    extension = path.rpartition(".")[2]
    is_known = extension.isascii() and extension.lower() in AUDIO_EXTENSIONS  # the lower case of others is disputed
    return is_known and not path.rpartition("/")[2].startswith("._")


def open_track(
    uri: str,
    expected_content_id: str | None = None,
    allowed: Sequence[Location] = (),
    *,
    size_bytes: int | None = None,
    plan: Plan | None = None,
) -> Source:
    """A track's audio, ready for the decoder. An `expected_content_id` of None is not checked.

    Args:
        allowed: the places that the track may be in; empty: anywhere.
        size_bytes: of the file, where the manifest knows it.
        plan: what will be read first of an object of uncompressed sound or Flac. Then only this is fetched, where that
            costs less.

    Raises:
        TrackError: stage fetch: `not_found`, `forbidden` (also: outside the allowed places), `unavailable`, or
            `changed` since the manifest was built.
    """
    try:
        location = Location(uri)
    except ValueError as error:
        raise TrackError("fetch", "not_found", str(error)) from None
    if allowed and not any(_is_below(location, place) for place in allowed):
        places = ", ".join(place.uri for place in allowed)
        raise TrackError("fetch", "forbidden", f"{uri} is in none of the allowed places {places}")
    with as_fetch_error(uri):
        if location.on_s3:
            is_large = (size_bytes or 0) >= MIN_RANGED_BYTES
            if plan is not None and is_large and location.path.lower().endswith(RANGED_EXTENSIONS):
                file = _open_ranged(location, expected_content_id, plan)
                if file is not None:
                    return file
            return _open_object(location, expected_content_id)
        entry = location.filesystem.info(location.path)
        if entry["type"] != "file":
            raise TrackError("fetch", "not_found", f"{uri} is not a file but a {entry['type']}")
        _check_unchanged(uri, content_id(entry), expected_content_id)
        with Path(location.path).open("rb"):  # a missing permission is an error of fetching, not of decoding
            return location.path


def fetched_bytes(source: Source | None) -> int:
    """The bytes that were downloaded of a track so far. A local file is read in place and has none."""
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, RangedFile):
        return source.fetched_bytes
    return source.cache.total_requested_bytes if isinstance(source, AbstractBufferedFile) else 0


def _is_below(location: Location, place: Location) -> bool:
    """Whether a location is a place, or below it; symbolic links are followed."""
    if location.on_s3 or place.on_s3:
        return f"{location.uri}/".startswith(f"{place.uri}/")
    return Path(location.path).resolve().is_relative_to(Path(place.path).resolve())


def _check_unchanged(uri: str, actual: str, expected: str | None) -> None:
    if expected is not None and actual != expected:
        raise TrackError("fetch", "changed", f"{uri} is {actual}, the manifest has {expected}")


def _open_object(location: Location, expected: str | None) -> bytes | BinaryIO:
    """Download an object by one request, whose header tells whether the body is needed; or open it for range reads."""

    def is_large(response: dict[str, Any]) -> bool:
        return bool(response["ContentLength"] > WHOLE_BYTES)

    data, response = _get_object(
        location, lambda header: not is_large(header) and expected in (None, content_id(header))
    )
    _check_unchanged(location.uri, content_id(response), expected)
    if not is_large(response):
        return data
    file: Any = location.filesystem.open(location.path, "rb", block_size=RANGE_BYTES)
    _check_unchanged(location.uri, content_id(file.details), expected)  # the ranges are of the object of this moment
    return file


def _open_ranged(location: Location, expected: str | None, plan: Plan) -> RangedFile | None:
    """An object of which the head, the end and what is planned are fetched; None where that does not pay."""
    head, response = _get_range(location, 0, HEAD_BYTES, {})
    if "ContentRange" not in response:  # a store that knows no ranges
        return None
    size = int(response["ContentRange"].rpartition("/")[2])
    _check_unchanged(location.uri, content_id(response), expected)
    same = {"IfMatch": response["ETag"]}
    of_now = content_id(response)
    file = RangedFile(
        lambda first, n_bytes: _get_range(location, first, n_bytes, same)[0],
        size,
        head,
        whole=lambda: _open_object(location, of_now),
    )
    layout = file.layout = pcm_layout(file) or flac_layout(file)
    if layout is None or layout.n_frames <= WHOLE_S * layout.rate_hz:
        return None
    spans = plan(layout.n_frames, layout.rate_hz)
    n_requests, n_bytes = layout.cost(spans)
    is_cheaper = n_bytes + (n_requests - 1) * REQUEST_BYTES < size if size <= WHOLE_BYTES else n_bytes <= WHOLE_BYTES
    return file if is_cheaper and layout.fetch(file, spans) else None


def _get_range(
    location: Location, first: int, n_bytes: int, conditions: dict[str, str]
) -> tuple[bytes, dict[str, Any]]:
    """A range of an object, and the response's header."""
    return _get_object(location, lambda _: True, Range=f"bytes={first}-{first + n_bytes - 1}", **conditions)


def _get_object(
    location: Location, needs_body: Callable[[dict[str, Any]], bool], **request: str
) -> tuple[bytes, dict[str, Any]]:
    """The body of a GET, empty where its header says that it is not needed, and the header.

    A body that is cut short is requested again.
    """
    from fsspec.asyn import sync
    from s3fs.core import S3_RETRYABLE_ERRORS

    filesystem = location.filesystem
    if not location.key:
        raise TrackError("fetch", "not_found", f"{location} is not a file but a bucket")
    for attempt in range(1, filesystem.retries + 1):
        response = filesystem.call_s3("get_object", Bucket=location.bucket, Key=location.key, **request)
        try:
            return sync(filesystem.loop, _read_body, response["Body"], needs_body(response)), response
        except S3_RETRYABLE_ERRORS as error:  # the header came, but the body was cut short
            if attempt == filesystem.retries:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


async def _read_body(body: Any, needs_body: bool) -> bytes:
    """The body of a response; one that is not needed is not read, and its connection is closed."""
    try:
        return bytes(await body.read()) if needs_body else b""
    finally:
        body.close()


@contextlib.contextmanager
def as_fetch_error(name: str) -> Iterator[None]:
    """Turn errors of a store or a disk into a TrackError of stage fetch that begins with `name`, usually a URI."""
    from botocore.exceptions import BotoCoreError
    from fsspec.exceptions import FSTimeoutError

    try:
        yield
    except FileNotFoundError as error:
        raise TrackError("fetch", "not_found", f"{name}: {one_line(error)}") from None
    except PermissionError as error:
        raise TrackError("fetch", "forbidden", f"{name}: {one_line(error)}") from None
    except (BotoCoreError, FSTimeoutError, OSError) as error:
        changed = is_unmet_condition(error)
        raise TrackError("fetch", "changed" if changed else "unavailable", f"{name}: {one_line(error)}") from None
