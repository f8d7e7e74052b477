"""A Flac file of which ranges are read gives the samples of the whole file, without a request that nobody foresaw."""

import io

import numpy as np
import pytest
from builders.sound_files import RATE_HZ, by_ffmpeg, claiming_samples, encoded, song, with_hole

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.decode import Stretches, open_sound, read_stretches
from mtl_core.audio.decoding.headers import flac
from mtl_core.audio.flac_layout import FlacLayout, flac_layout
from mtl_core.audio.ranged_file import HEAD_BYTES, RangedFile
from mtl_core.audio.segments import rounds

N_SEGMENTS = 8


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


def stretches(data: bytes) -> list[Stretches]:
    """Four segments of 1 s all over the recording, then four more."""
    n_samples = round(open_sound(io.BytesIO(data)).n_frames * 16_000 / RATE_HZ)
    places = [((2 * i + 1) * n_samples // (2 * N_SEGMENTS) - 8_000, 16_000) for i in range(N_SEGMENTS)]
    numbers = np.concatenate(rounds(N_SEGMENTS))
    return [Stretches(places=[places[i] for i in part], are_excerpts=False) for part in (numbers[:4], numbers[4:])]


def samples_of(data: bytes, places: Stretches) -> np.ndarray:
    read = read_stretches(open_sound(io.BytesIO(data)), places)
    return np.concatenate([excerpt.samples for excerpt in read.excerpts])


def loud_and_quiet(seconds: float = 60) -> np.ndarray:
    """Some of it takes a fifth of the bytes of the rest: the byte rate of the whole file tells little."""
    samples = song(seconds)
    samples[len(samples) // 3 : len(samples) // 2] *= 0.001
    return samples


def by_libflac(samples: np.ndarray) -> bytes:
    """With a seek table that leads astray, and no padding."""
    data = by_ffmpeg(samples, "flac", "flac")
    room = next(block for block in flac.metadata_blocks(ByteView(io.BytesIO(data))) if block.kind == flac.PADDING)
    table = flac.seek_table([(0, 0), (100 * 4096, 17), (200 * 4096, 99)], room.n_bytes)[flac.SEEK_POINT.size :]
    table += bytes(room.n_bytes - len(table))
    return (
        data[: room.at - 4]
        + bytes([data[room.at - 4] & 0x80 | flac.SEEK_TABLE])
        + data[room.at - 3 : room.at]
        + table
        + data[room.at + room.n_bytes :]
    )


@pytest.mark.parametrize("make", [lambda: by_ffmpeg(song(60), "flac", "flac"), lambda: by_libflac(song(60)),
                                  lambda: by_ffmpeg(loud_and_quiet(), "flac", "flac")],
                         ids=["ffmpeg", "wrong table", "loud and quiet"])  # fmt: skip
def test_what_is_decoded_was_foreseen_and_equals_the_whole_file(make) -> None:
    data = make()
    ranged = Ranged(data)
    assert ranged.layout is not None
    for places in stretches(data):
        spans = places.in_seconds(RATE_HZ)
        assert ranged.layout.fetch(ranged.file, spans) and not ranged.layout.fetch(ranged.file, spans)
        n_requests = ranged.n_requests
        sound = open_sound(ranged.file)
        assert sound.n_frames == open_sound(io.BytesIO(data)).n_frames
        read = read_stretches(sound, places)
        assert ranged.n_requests == n_requests and read.lost_s == 0
        assert (np.concatenate([excerpt.samples for excerpt in read.excerpts]) == samples_of(data, places)).all()


@pytest.mark.parametrize(
    "data",
    [
        claiming_samples(by_ffmpeg(song(20), "flac", "flac"), 0.5),
        claiming_samples(by_ffmpeg(song(20), "flac", "flac"), 2),
        by_ffmpeg(song(20), "flac", "flac") * 2,
        by_ffmpeg(song(20), "flac", "flac")[:-200_000],
        by_ffmpeg(song(20), "flac", "flac") + bytes(300_000),
    ],
    ids=["half", "double", "joined", "cut", "zeros behind"],
)
def test_a_file_that_is_not_what_its_header_says_does_not_fit(data: bytes) -> None:
    ranged = Ranged(data)
    assert ranged.layout is not None and ranged.layout.fits
    assert not ranged.layout.fetch(ranged.file, [(0, 1)]) and not ranged.layout.fits


@pytest.mark.parametrize("seed", range(8))
def test_damage_costs_what_it_costs_in_the_whole_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(by_ffmpeg(loud_and_quiet(30), "flac", "flac"))
    for _ in range(30):
        at, n_bytes = int(rng.integers(100, len(data))), int(rng.integers(1, 20_000))
        data[at : at + n_bytes] = rng.integers(0, 256, len(data[at : at + n_bytes]), np.uint8).tobytes()
    damaged = bytes(data) if seed % 2 else with_hole(bytes(data), 0.3, 200_000)
    ranged = Ranged(damaged)
    assert ranged.layout is not None
    whole = open_sound(io.BytesIO(damaged))
    for places in stretches(damaged):
        ranged.layout.fetch(ranged.file, places.in_seconds(RATE_HZ))
        sound = open_sound(ranged.file)
        assert sound.n_frames == whole.n_frames
        read, of_whole = read_stretches(sound, places), read_stretches(whole, places)
        assert read.lost_s == pytest.approx(of_whole.lost_s, abs=0.2)
        for excerpt, expected in zip(read.excerpts, of_whole.excerpts, strict=True):
            assert (excerpt.samples == expected.samples).mean() > 0.9


def test_frames_are_not_looked_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = by_ffmpeg(song(60), "flac", "flac")
    ranged = Ranged(data)
    monkeypatch.setattr(flac, "flac_frames", lambda *_: [])
    monkeypatch.setattr(flac, "is_as_claimed", lambda _: True)
    monkeypatch.setattr("mtl_core.audio.flac_layout.MOST_BYTES", len(data) // 4)
    assert ranged.layout is not None and not ranged.layout.fetch(ranged.file, [(20, 21)])
    assert not ranged.layout.fits and ranged.file.held_bytes < len(data) // 2


def test_a_file_without_room_or_without_its_beginning_has_no_layout() -> None:
    data = by_ffmpeg(song(3), "flac", "flac")
    assert isinstance(Ranged(data).layout, FlacLayout)
    assert Ranged(encoded(song(3), "WAV", "PCM_16")).layout is None
    assert Ranged(data[:60]).layout is None, "its metadata are cut off"
    assert Ranged(claiming_samples(data, 0)).layout is None
    room = next(block for block in flac.metadata_blocks(ByteView(io.BytesIO(data))) if block.kind == flac.PADDING)
    other = bytearray(data)
    other[room.at - 4] = other[room.at - 4] & 0x80 | 2  # of an application
    assert Ranged(bytes(other)).layout is None
    end = room.at + room.n_bytes
    later = flac.flac_frames(data[end:], 4096)[3][0]
    assert Ranged(data[:end] + data[end + later :]).layout is None


def test_what_a_table_with_too_little_room_costs_is_the_whole_file() -> None:
    layout = Ranged(by_ffmpeg(song(3), "flac", "flac")).layout
    assert layout is not None and layout.cost([(i, i + 0.1) for i in range(300)])[0] == 1
    with pytest.raises(ValueError, match="10 bytes are too few for 2 points"):
        flac.seek_table([(0, 0)], 10)


def test_only_our_own_table_is_believed() -> None:
    points = [(4096, 500), (0, 0)]
    data = by_ffmpeg(song(1), "flac", "flac")
    view = ByteView(io.BytesIO(data))
    room = next(block for block in flac.metadata_blocks(view) if block.kind == flac.PADDING)
    table = flac.seek_table(points, room.n_bytes)
    assert len(table) == room.n_bytes and flac.SEEK_POINT.unpack_from(table, 2 * flac.SEEK_POINT.size) == (4096, 500, 0)
    ours = data[: room.at - 4] + bytes([flac.SEEK_TABLE | 0x80]) + data[room.at - 3 : room.at] + table
    assert flac.has_exact_seek_table(ByteView(io.BytesIO(ours))) and not flac.has_exact_seek_table(view)
    assert not flac.has_exact_seek_table(ByteView(io.BytesIO(by_libflac(song(1)))))
    assert not flac.has_exact_seek_table(ByteView(io.BytesIO(b"fLaC" + bytes(1 << 20)))), "a million empty blocks"
