"""A ranged file gives the bytes of the object, and fetches each block once and no more than is asked for."""

import io
import threading

import numpy as np
import pytest

from mtl_core.audio.ranged_file import BLOCK_BYTES, HEAD_BYTES, RangedFile

DATA = np.random.default_rng(0).integers(0, 256, 10 * BLOCK_BYTES + 77, np.uint8).tobytes()


class Store:
    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.requests, self._lock = data, [], threading.Lock()

    def fetch(self, first: int, n_bytes: int) -> bytes:
        with self._lock:
            self.requests.append((first, n_bytes))
        return self.data[first : first + n_bytes]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def file(store: Store) -> RangedFile:
    return RangedFile(store.fetch, len(DATA), DATA[:HEAD_BYTES])


def test_any_read_gives_the_bytes_of_the_object(file, store):
    reference = io.BytesIO(DATA)
    random = np.random.default_rng(1)
    for _ in range(200):
        at, n = int(random.integers(0, len(DATA) + 10)), int(random.integers(-1, 3 * BLOCK_BYTES))
        assert file.seek(at) == reference.seek(at)
        assert file.read(n) == reference.read(n)
        assert file.tell() == reference.tell()
    assert (file.seek(-5, io.SEEK_END), file.read(), file.seek(-3, io.SEEK_CUR)) == (
        len(DATA) - 5,
        DATA[-5:],
        len(DATA) - 3,
    )
    assert sum(n for _, n in store.requests) == file.fetched_bytes - HEAD_BYTES
    assert file.held_bytes == HEAD_BYTES, "what nobody expected is not kept"


def test_what_is_read_in_a_row_is_fetched_in_ever_larger_requests(file, store):
    assert b"".join(iter(lambda: file.read(BLOCK_BYTES // 2), b"")) == DATA
    assert [n // BLOCK_BYTES for _, n in store.requests] == [1, 2, 4, 2], "the last one holds the rest"
    file.expect([(5 * BLOCK_BYTES, 6 * BLOCK_BYTES)])
    file.drop()
    assert file.held_bytes == HEAD_BYTES


def test_what_is_expected_is_fetched_in_one_request_a_run(file, store):
    file.expect(
        [
            (0, 10),
            (2 * BLOCK_BYTES + 1, 4 * BLOCK_BYTES),
            (3 * BLOCK_BYTES, 5 * BLOCK_BYTES - 1),
            (len(DATA) - 1, len(DATA)),
        ]
    )
    assert sorted(store.requests) == [(2 * BLOCK_BYTES, 3 * BLOCK_BYTES), (10 * BLOCK_BYTES, 77)]
    file.seek(2 * BLOCK_BYTES + 100)
    assert file.read(2 * BLOCK_BYTES) == DATA[2 * BLOCK_BYTES + 100 :][: 2 * BLOCK_BYTES]
    assert len(store.requests) == 2


def test_what_fetching_raises_is_raised(store):
    def fail(first, n_bytes):
        raise OSError("the store is gone")

    file = RangedFile(fail, len(DATA), DATA[:HEAD_BYTES])
    assert file.read(5) == DATA[:5]
    with pytest.raises(OSError, match="gone"):
        file.expect([(3 * BLOCK_BYTES, 4 * BLOCK_BYTES), (6 * BLOCK_BYTES, 7 * BLOCK_BYTES)])
    short = RangedFile(lambda first, n_bytes: b"x", len(DATA), DATA[:HEAD_BYTES])
    with pytest.raises(OSError, match=f"1 of {BLOCK_BYTES} bytes"):
        short.expect([(BLOCK_BYTES, BLOCK_BYTES + 1)])


def test_other_bytes_can_stand_in_the_file(file, store):
    file.expect([(0, 2 * BLOCK_BYTES)])
    at, new = BLOCK_BYTES - 3, b"over two blocks"
    file.replace(at, new)
    assert file.read_at(0, 2 * BLOCK_BYTES) == DATA[:at] + new + DATA[at + len(new) : 2 * BLOCK_BYTES]
    assert file.holds(0, 2 * BLOCK_BYTES) and not file.holds(0, 2 * BLOCK_BYTES + 1)
    assert file.tell() == 0 and file.read_at(len(DATA) - 2, 5) == DATA[-2:] and file.read_at(len(DATA), 5) == b""
