"""A stub of S3's ListObjectsV2 over ten million keys: python bench/listing_server.py PORT FOLDER LAYOUT N_KEYS

Every key's part of the answer is written once to a file, so that a page is a piece of that file: the server does no
work a page but to find its start. Each page takes 150 ms, as S3's does. Layouts:

    folders  100 keys in each of N_KEYS / 100 folders
    flat     one prefix of names that are hashes
    lopsided one folder with 90 % of the keys, and many small ones on both sides of it
"""

import asyncio
import hashlib
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PAGE_S = 0.150
KEYS_PER_PAGE = 1000
PREFIX = "catalogue/"
LAYOUTS = ("folders", "flat", "lopsided")


def keys(layout: str, n_keys: int) -> Iterator[str]:
    """The keys of a layout, ascending."""
    if layout == "folders":
        yield from map(folder_key, range(n_keys))
    elif layout == "flat":
        hashes = np.random.default_rng(0).integers(0, 2**63, n_keys, dtype=np.int64)
        yield from (f"{PREFIX}{number:016x}.mp3" for number in np.sort(hashes).tolist())
    else:
        few = n_keys // 20
        yield from (f"{PREFIX}a{n // 50:06d}/{n % 50:02d}.mp3" for n in range(few))
        yield from (f"{PREFIX}main/{n:09d}.mp3" for n in range(n_keys - 2 * few))
        yield from (f"{PREFIX}z{n // 50:06d}/{n % 50:02d}.mp3" for n in range(few))


def folder_key(n: int) -> str:
    """The nth key of the layout "folders"."""
    return f"{PREFIX}artist-{n // 100:06d}/{n // 10 % 10}/track {n % 10:02d}.flac"


def content(key: str) -> tuple[str, int]:
    """The ETag, without quotes, and the size in bytes of an object."""
    etag = hashlib.md5(key.encode()).hexdigest()
    return etag, 3_000_000 + int(etag[:5], 16)


def write_pages(layout: str, n_keys: int, folder: Path) -> tuple[Path, Path]:
    """Write the parts of all keys one after another, and where each begins. What is there is kept."""
    parts, starts = folder / f"{layout}-{n_keys}.xml", folder / f"{layout}-{n_keys}.npy"
    if starts.exists():
        return parts, starts
    folder.mkdir(parents=True, exist_ok=True)
    at = np.zeros(n_keys + 1, np.int64)
    with parts.open("wb") as file:
        for n, key in enumerate(keys(layout, n_keys)):
            etag, size = content(key)
            part = (
                f"<Contents><Key>{urllib.parse.quote(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                f"<ETag>&quot;{etag}&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>"
                f"FULL_OBJECT</ChecksumType><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
            file.write(part.encode())
            at[n + 1] = at[n] + len(part)
    np.save(starts, at)
    return parts, starts


class Pages:
    """Answers requests for pages of a layout."""

    def __init__(self, parts: Path, starts: Path) -> None:
        self._parts = np.memmap(parts, np.uint8, "r")
        self._starts = np.load(starts, mmap_mode="r")
        self.n_requests = 0

    def _key(self, n: int) -> str:
        part = self._parts[self._starts[n] : self._starts[n + 1]].tobytes()
        return urllib.parse.unquote(part[15 : part.index(b"</Key>")].decode())

    def _first_after(self, text: str) -> int:
        low, high = 0, len(self._starts) - 1
        while low < high:
            middle = (low + high) // 2
            if self._key(middle) <= text:
                low = middle + 1
            else:
                high = middle
        return low

    def answer(self, query: dict[str, str]) -> list[bytes | memoryview]:
        self.n_requests += 1
        n_keys = len(self._starts) - 1
        token, prefix = query.get("continuation-token"), query.get("prefix", "")
        n = int(token) if token else self._first_after(max(query.get("start-after", ""), prefix))
        size = min(int(query.get("max-keys", KEYS_PER_PAGE)), KEYS_PER_PAGE)
        end = min(n + size, n_keys)
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < n_keys else ""
        head = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{prefix}</Prefix><KeyCount>{end - n}</KeyCount><MaxKeys>{size}</MaxKeys>"
            f"<EncodingType>url</EncodingType><IsTruncated>{str(end < n_keys).lower()}</IsTruncated>{more}"
        )
        page = memoryview(self._parts[self._starts[n] : self._starts[end]])
        return [head.encode(), page, b"</ListBucketResult>"]


async def serve(port: int, pages: Pages) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readline():
            while await reader.readline() not in (b"\r\n", b""):
                pass
            query = dict(urllib.parse.parse_qsl(request.split()[1].decode().partition("?")[2]))
            if request.startswith(b"DELETE"):  # asks for the number of requests since the last time
                body: list[bytes | memoryview] = [str(pages.n_requests).encode()]
                pages.n_requests = 0
            else:
                body = pages.answer(query)
                await asyncio.sleep(PAGE_S)
            length = sum(len(part) for part in body)
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n".encode()
            )
            writer.writelines(body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Pages(*write_pages(sys.argv[3], int(sys.argv[4]), Path(sys.argv[2])))))
