"""A Flac file of which ranges are read gives the samples of the whole file, without a request that nobody expected."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from builders.sound_files import RATE_HZ, by_ffmpeg, claiming_samples, encoded, song, with_hole

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.decode import Stretches, open_sound, read_stretches
from mtl_core.audio.decoding.headers import flac
from mtl_core.audio.flac_layout import FlacLayout, flac_layout
from mtl_core.audio.ranged_file import HEAD_BYTES, RangedFile

ONE_POINT = flac.SEEK_POINT.size


class Ranged:
    """A ranged file over bytes, which counts requests."""

    def __init__(self, data: bytes) -> None:
        self.n_requests = 0
        self._data = data
        self.file = RangedFile(self._fetch, len(data), data[:HEAD_BYTES])
        self.layout = flac_layout(self.file)

    def _fetch(self, first: int, n_bytes: int) -> bytes:
        self.n_requests += 1
        return self._data[first : first + n_bytes]

    def fetch(self, places: Stretches) -> bool:
        return self.layout is not None and self.layout.fetch(self.file, places.in_seconds(self.layout.rate_hz))


def flac_of(samples: np.ndarray, rate_hz: int = RATE_HZ, **options: str) -> bytes:
    """With 8 KiB of padding, as ffmpeg writes it."""
    return by_ffmpeg(samples, "flac", "flac", rate_hz, **options)


def segments(data: bytes, n: int = 4) -> Stretches:
    """Segments of 1 s all over the recording."""
    sound = open_sound(io.BytesIO(data))
    n_samples = sound.n_frames * 16_000 // sound.rate_hz
    return Stretches(
        places=[((2 * i + 1) * n_samples // (2 * n) - 8_000, 16_000) for i in range(n)], are_excerpts=False
    )


def samples_of(file: io.BufferedIOBase, places: Stretches) -> np.ndarray:
    return np.concatenate([excerpt.samples for excerpt in read_stretches(open_sound(file), places).excerpts])


def with_block(data: bytes, kind: int, content: bytes) -> bytes:
    """Another block of metadata behind the first."""
    first = next(flac.metadata_blocks(ByteView(io.BytesIO(data))))
    end = first.at + first.n_bytes
    return data[:end] + bytes([kind]) + len(content).to_bytes(3) + content + data[end:]


def without_padding(data: bytes) -> bytes:
    """Its padding is another block now, which nobody may overwrite."""
    room = next(block for block in flac.metadata_blocks(ByteView(io.BytesIO(data))) if block.kind == flac.PADDING)
    return data[: room.at - 4] + bytes([data[room.at - 4] & 0x80 | 2]) + data[room.at - 3 :]


def wrong_table(n_bytes: int = 20 * ONE_POINT) -> bytes:
    """A seek table that leads astray."""
    points = [(sample, sample % 99) for sample in range(0, 10_000_000, 100_000)][: n_bytes // ONE_POINT - 1]
    return flac.seek_table(points, n_bytes + ONE_POINT)[ONE_POINT:]


def loud_and_quiet(seconds: float = 60) -> np.ndarray:
    """Some of it takes a fifth of the bytes of the rest: the byte rate of the whole file tells little."""
    samples = song(seconds)
    samples[len(samples) // 3 : len(samples) // 2] *= 0.001
    return samples


FILES: dict[str, Callable[[], bytes]] = {
    "ffmpeg": lambda: flac_of(song(60)),
    "loud and quiet": lambda: flac_of(loud_and_quiet()),
    "8 kHz, mono": lambda: flac_of(song(200, 8_000, channels=1), 8_000),
    "11,025 Hz": lambda: flac_of(song(150, 11_025), 11_025),
    "96 kHz": lambda: flac_of(song(40, 96_000), 96_000),
    "a wrong table and padding": lambda: with_block(flac_of(song(60)), flac.SEEK_TABLE, wrong_table()),
    "a wrong table alone": lambda: with_block(without_padding(flac_of(song(60))), flac.SEEK_TABLE, wrong_table()),
    "a picture": lambda: with_block(flac_of(song(60)), 6, bytes(range(256)) * 3_000),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_what_is_decoded_was_expected_and_equals_the_whole_file(make: Callable[[], bytes]) -> None:
    data = make()
    ranged, places = Ranged(data), segments(data)
    assert ranged.fetch(places) and ranged.fetch(places)
    n_requests = ranged.n_requests
    sound = open_sound(ranged.file)
    assert sound.n_frames == open_sound(io.BytesIO(data)).n_frames
    assert (samples_of(ranged.file, places) == samples_of(io.BytesIO(data), places)).all()
    assert ranged.n_requests == n_requests
    assert not ranged.fetch(segments(data, 5)), "the decoder would have to open it again"


NOT_FITTING: dict[str, Callable[[], bytes]] = {
    "claims half": lambda: claiming_samples(flac_of(song(20)), 0.5),
    "claims double": lambda: claiming_samples(flac_of(song(20)), 2),
    "joined": lambda: flac_of(song(20)) * 2,
    "cut off": lambda: flac_of(song(20))[:-200_000],
    "zeros behind": lambda: flac_of(song(20)) + bytes(300_000),
    "a hole": lambda: with_hole(flac_of(song(20)), 0.38, 300_000),
    "a small hole": lambda: with_hole(flac_of(song(20)), 0.38, 3_000),
    "no room": lambda: with_block(without_padding(flac_of(song(20))), flac.PADDING, bytes(5 * ONE_POINT)),
}


@pytest.mark.parametrize("make", NOT_FITTING.values(), ids=NOT_FITTING)
def test_a_file_that_is_not_as_its_header_says_or_has_no_room_is_needed_as_a_whole(make: Callable[[], bytes]) -> None:
    data = make()
    ranged = Ranged(data)
    assert ranged.layout is not None and not ranged.fetch(segments(data))


@pytest.mark.parametrize("seed", range(24))
def test_of_a_damaged_file_that_is_read_by_range_no_more_is_lost(seed: int) -> None:
    """Damage of 1 byte to 300 kB somewhere: either it is elsewhere than what is read, or the whole file is needed."""
    rng = np.random.default_rng(seed)
    data = bytearray(flac_of(loud_and_quiet(40), compression_level=str(seed % 12)))
    places = segments(bytes(data))
    undamaged = samples_of(io.BytesIO(bytes(data)), places)
    for _ in range(3):
        at, n_bytes = int(rng.integers(10_000, len(data))), int(10 ** rng.uniform(0, 5.5))
        data[at : at + n_bytes] = rng.integers(0, 256, len(data[at : at + n_bytes]), np.uint8).tobytes()
    damaged = bytes(data)
    ranged = Ranged(damaged)
    if ranged.fetch(places):
        n_requests = ranged.n_requests
        samples = samples_of(ranged.file, places)
        of_whole = samples_of(io.BytesIO(damaged), places)
        assert (samples != undamaged).sum() <= (of_whole != undamaged).sum()
        assert ranged.n_requests == n_requests


def test_what_is_fetched_and_known_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = flac_of(song(60))
    ranged, places = Ranged(data), segments(data)
    monkeypatch.setattr("mtl_core.audio.flac_layout.MOST_BYTES", len(data) // 4)
    assert not ranged.fetch(places) and ranged.file.held_bytes <= len(data) // 4
    monkeypatch.undo()
    hostile = bytearray(data)
    header = hostile[ranged.layout._first_byte :][:6]  # of the first frame, with its checksum
    hostile[len(data) // 4 :] = header * ((len(data) - len(data) // 4) // len(header))
    assert not Ranged(bytes(hostile)).fetch(places)
    assert len(flac.frame_headers(bytes(hostile), 4096, 100)) == 100


def test_a_file_without_room_or_without_its_beginning_has_no_layout() -> None:
    data = flac_of(song(3))
    assert isinstance(Ranged(data).layout, FlacLayout)
    assert Ranged(encoded(song(3), "WAV", "PCM_16")).layout is None
    assert Ranged(data[:60]).layout is None, "its metadata are cut off"
    assert Ranged(claiming_samples(data, 0)).layout is None
    assert Ranged(without_padding(data)).layout is None
    *_, last = flac.metadata_blocks(ByteView(io.BytesIO(data)))
    end = last.at + last.n_bytes
    later = flac.flac_frames(data[end:], 4096)[3][0]
    assert Ranged(data[:end] + data[end + later :]).layout is None
    many = data
    for _ in range(1_000):
        many = many[:42] + b"\1\0\0\0" + many[42:]
    assert Ranged(many).layout is None, "too many blocks of metadata to find the first frame"


def test_only_our_own_table_is_believed() -> None:
    points = [(4096, 500), (0, 0)]
    data = flac_of(song(1))
    table = flac.seek_table(points, 100)
    assert len(table) == 100 and flac.SEEK_POINT.unpack_from(table, 2 * ONE_POINT) == (4096, 500, 0)
    ours, others = (ByteView(io.BytesIO(with_block(data, flac.SEEK_TABLE, of))) for of in (table, wrong_table()))
    assert flac.has_exact_seek_table(ours) and not flac.has_exact_seek_table(others)
    assert not flac.has_exact_seek_table(ByteView(io.BytesIO(data)))
    assert not flac.has_exact_seek_table(ByteView(io.BytesIO(b"fLaC" + bytes(1 << 20)))), "a million empty blocks"
    with pytest.raises(ValueError, match="10 bytes are too few for 2 points"):
        flac.seek_table([(0, 0)], 10)
