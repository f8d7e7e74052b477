"""Object listing: every object below an S3 prefix, by requests in parallel.

S3 lists keys in the order of their UTF-8 bytes, at most 1,000 a request, and a request takes 0.1 to 0.2 s: one after
another, ten million keys take 25 minutes. But a listing may start after any text, whether it is a key or not. So the
keys are divided into ranges, and each thread lists one range page by page. A thread without a range takes the upper
half of the range with the most keys left, estimated from the keys of its last page. If there is nothing in that half, a
request was in vain, and the range is known better. This needs no knowledge of folders: one flat prefix, many folders
and a folder with most of the keys are all the same to it.

botocore makes the requests: it signs, retries and reports errors. Only its parser is replaced: it takes 56 ms of CPU a
page, expat 3 ms. obstore is not used because it refuses keys with `//` or `/./`, pyarrow because it gives no ETags.
"""

import bisect
import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.parsers import expat

import pyarrow as pa

from mtl_core.storage import identity
from mtl_core.storage.location import Location

#: Of the files of a folder: the path relative to the folder, what changes when the bytes change, and the size.
FILES = pa.schema([("path", pa.string()), ("content_id", pa.string()), ("size_bytes", pa.int64())])

KEYS_PER_PAGE = 1000  # S3 gives no more
REQUESTS = 32  # at a time
_QUEUED_PAGES = 64  # bounds the memory where requests are faster than the reader
_MIN_PAGES_LEFT = 2  # a range with fewer is not divided
_END = chr(0x10FFFF)  # the last of all characters
_MOST_SPANS = 10**12  # of a page's keys in what is left: no bucket has more
_DIGITS = 12  # characters after what two texts have in common that are looked at to find their middle


def list_objects(folder: Location, keys_per_page: int = KEYS_PER_PAGE) -> Iterator[pa.RecordBatch]:
    """The objects below a folder on S3 as batches of `FILES`, in any order.

    Keys that end with `/` are left out: they stand for folders.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: the store cannot be listed, or not in the order of the keys.
    """
    bucket, prefix = folder.bucket, folder.prefix
    ranges = _Ranges(prefix, keys_per_page)
    client = _open_client()
    pages: queue.Queue[pa.RecordBatch | Exception | None] = queue.Queue(_QUEUED_PAGES)

    def list_ranges() -> None:
        try:
            while (keys := ranges.take()) is not None:
                while keys.open:
                    page = _request_page(client, bucket, prefix, keys, keys_per_page)
                    pages.put(page.to_batch(len(prefix), ranges.advance(keys, page)))
        except Exception as error:  # noqa: BLE001 (raised again by the reader)
            pages.put(error)
        finally:
            pages.put(None)

    # A directory bucket has no order of keys and cannot start anywhere: one thread follows its pages.
    at_work = 1 if bucket.endswith("--x-s3") else REQUESTS
    for n in range(at_work):
        threading.Thread(target=list_ranges, name=f"list-{n}", daemon=True).start()
    try:
        while at_work:
            page = pages.get()
            if isinstance(page, Exception):
                raise page
            if page is None:
                at_work -= 1
            else:
                yield page
    finally:
        ranges.close()
        while at_work:  # threads may wait for room in the queue
            at_work -= pages.get() is None


@dataclass(eq=False)
class _Range:
    """The keys after `after` up to and including `until`; if that is None, all that follow."""

    after: str
    until: str | None
    keys_left: float = 0  # an estimate; 0 before the first page
    token: str | None = None  # continues the listing; None: it has not begun
    open: bool = True  # not all of it has been listed


@dataclass(frozen=True)
class _Page:
    keys: list[str]  # ascending
    etags: list[str]
    sizes: list[int]
    token: str | None  # None: there are no more keys

    def to_batch(self, n_prefix: int, n_rows: int) -> pa.RecordBatch:
        """The first `n_rows` as a batch of `FILES`, the prefix cut off, without the keys that stand for folders."""
        rows = [row for row in range(n_rows) if not self.keys[row].endswith("/")]
        return pa.record_batch(
            [
                pa.array([self.keys[row][n_prefix:] for row in rows], pa.string()),
                pa.array([self.etags[row] for row in rows], pa.string()),
                pa.array([self.sizes[row] for row in rows], pa.int64()),
            ],
            schema=FILES,
        )


class _Ranges:
    """The ranges of a prefix that are still to be listed. They do not overlap and leave nothing out."""

    def __init__(self, prefix: str, keys_per_page: int) -> None:
        self._end = prefix + _END
        self._min_keys_left = _MIN_PAGES_LEFT * keys_per_page
        self._first: _Range | None = _Range(prefix, None)
        self._listed: list[_Range] = []  # each by one thread
        self._alphabet: list[str] = []  # the characters of some keys, ascending: others are not worth looking for
        self._changed = threading.Condition()

    def take(self) -> _Range | None:
        """Wait for a range to list; None: nothing is left."""
        with self._changed:
            if self._first is not None:
                taken, self._first = self._first, None
                self._listed.append(taken)
                return taken
            while self._listed:
                most = max(self._listed, key=lambda keys: keys.keys_left)
                if most.keys_left < self._min_keys_left:
                    self._changed.wait()
                elif middle := find_middle(most.after, most.until or self._end, self._alphabet):
                    taken = _Range(middle, most.until)
                    most.until, most.keys_left = middle, most.keys_left / 2
                    self._listed.append(taken)
                    return taken
                else:
                    most.keys_left = 0
            return None

    def advance(self, keys: _Range, page: _Page) -> int:
        """Take note of a page of a range. Returns how many of its first keys lie in the range."""
        with self._changed:
            n_keys = len(page.keys) if keys.until is None else bisect.bisect_right(page.keys, keys.until)
            keys.open = page.token is not None and n_keys == len(page.keys) and keys in self._listed
            if keys.open:
                keys.token = page.token
                if page.keys:
                    first, keys.after = page.keys[0], page.keys[-1]
                    self._alphabet = sorted({*self._alphabet, *first, *keys.after})
                    end = keys.until or self._end
                    keys.keys_left = n_keys * count_spans(first, keys.after, end, self._alphabet)
            elif keys in self._listed:
                self._listed.remove(keys)
            self._changed.notify_all()
        return n_keys

    def close(self) -> None:
        """Let all threads end after their page."""
        with self._changed:
            self._first = None
            self._listed.clear()
            self._changed.notify_all()


def find_middle(low: str, high: str, alphabet: list[str]) -> str | None:
    """A text between two others, about half-way in the order of texts of these characters; None if there is none.

    >>> find_middle("a/03", "a/09", list("/0123456789a"))
    'a/06'
    """
    n_common = _count_common(low, high)
    base = len(alphabet) + 1
    number = sum(_to_number(text[n_common:], alphabet, _DIGITS) for text in (low, high)) // 2
    middle = low[:n_common]
    for place in reversed(range(_DIGITS)):
        middle += alphabet[min(number // base**place % base, len(alphabet) - 1)]
        if low < middle < high:
            return middle
    return None


def count_spans(first: str, last: str, end: str, alphabet: list[str]) -> float:
    """How many times the span of texts from `first` to `last` fits between `last` and `end`, at most `_MOST_SPANS`.

    >>> count_spans("a/00", "a/02", "a/08", list("/0123456789a"))
    3.0
    """
    n_common = _count_common(first, end)
    n_digits = _count_common(first, last) - n_common + _DIGITS
    at_first, at_last, at_end = (_to_number(text[n_common:], alphabet, n_digits) for text in (first, last, end))
    rest, span = at_end - at_last, max(at_last - at_first, 1)
    return rest / span if rest < _MOST_SPANS * span else _MOST_SPANS  # both may be too large for a float


def _count_common(left: str, right: str) -> int:
    """The number of characters with which both texts begin."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _to_number(text: str, alphabet: list[str], n_digits: int) -> int:
    """A number that orders texts as their first `n_digits` characters do."""
    number = 0
    for place in range(n_digits):
        digit = bisect.bisect_left(alphabet, text[place]) if place < len(text) else 0
        number = number * (len(alphabet) + 1) + digit
    return number


def _open_client() -> Any:
    """A botocore client of this process's identity whose responses to `list_objects_v2` have a `_Page` as "page"."""
    from botocore.config import Config

    identity.open_client()  # raises IdentityError where the configuration of S3 is wrong
    config = Config(max_pool_connections=REQUESTS, **identity.CLIENT_CONFIG)
    client = identity.open_session().create_client("s3", config=config)
    # The wildcard puts this before botocore's own handler, which parses a response to see whether it is an error.
    client.meta.events.register("before-parse.*.ListObjectsV2", _parse_response)
    return client


def _request_page(client: Any, bucket: str, prefix: str, keys: _Range, keys_per_page: int) -> _Page:
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    start = {"StartAfter": keys.after} if keys.after else {}
    if keys.token is not None:
        start = {"ContinuationToken": keys.token}
    try:
        response = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=keys_per_page, **start)
    except ClientError as error:
        raise translate_boto_error(error) from None
    page: _Page = response["page"]
    in_order = bucket.endswith("--x-s3") or (page.keys == sorted(page.keys) and page.keys[:1] > [keys.after])
    if page.keys and not in_order:
        raise OSError(f"the keys that the store lists after {keys.after!r} are not in order, e.g. {page.keys[0]!r}")
    return page


def _parse_response(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """botocore's event before it parses a response. Only a listing is taken out; botocore retries or raises errors."""
    if response_dict["status_code"] == 200 and b"<ListBucketResult" in response_dict["body"][:1000]:
        with contextlib.suppress(expat.ExpatError):  # a response that was cut off, which botocore requests again
            customized_response_dict["page"] = _parse_page(response_dict["body"])
            response_dict["body"] = b""


def _parse_page(body: bytes) -> _Page:
    texts: dict[str, list[str]] = {
        name: [] for name in ("Key", "ETag", "Size", "EncodingType", "NextContinuationToken")
    }
    text: list[str] = []

    def end_element(name: str) -> None:
        if name in texts:
            texts[name].append("".join(text))
        text.clear()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda *_: text.clear()  # some stores break lines between elements
    parser.CharacterDataHandler = text.append
    parser.EndElementHandler = end_element
    parser.Parse(body, True)
    keys, etags, sizes = texts["Key"], texts["ETag"], texts["Size"]
    if not len(keys) == len(etags) == len(sizes):
        raise OSError(f"a listing has {len(keys)} keys, {len(etags)} ETags and {len(sizes)} sizes: all are needed")
    return _Page(
        keys=[unquote_plus(key) for key in keys] if texts["EncodingType"] == ["url"] else keys,
        etags=[etag.strip('"') for etag in etags],
        sizes=[int(size) for size in sizes],
        token=next(iter(texts["NextContinuationToken"]), None),
    )
