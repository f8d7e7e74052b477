"""Times that begin anew, stand still or leap neither hide sound nor invent silence, in any container that has times."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest
from builders.sound_files import FRAGMENTS, RATE_HZ, by_ffmpeg, encoded, mp3, song

from mtl_core.audio.decoding import sound_file
from mtl_core.audio.decoding.decode import Stretches, open_sound, read_stretches
from mtl_core.audio.decoding.ffmpeg_stream import FfmpegStream

SONGS = [song(6, seed=number) for number in range(2)]
CONTAINERS = {"ts": ("mpegts", {}), "flv": ("flv", {}), "matroska": ("matroska", {}), "mp4": ("mp4", {})}
CONTAINERS |= {"fragments": ("mp4", FRAGMENTS), "live": ("matroska", {"live": "1"})}


def aac(samples: np.ndarray, container: str) -> bytes:
    name, muxer = CONTAINERS[container]
    return by_ffmpeg(samples, name, "aac", aac_pns="0", muxer=muxer)


def shifted(data: bytes, container: str, shift_s: Callable[[float], float]) -> bytes:
    """The packets of a file in another container, with times that are later by `shift_s` of the time."""
    file, (name, muxer) = io.BytesIO(), CONTAINERS[container]
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=name, container_options=muxer) as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                ticks = round(shift_s(float(packet.pts * packet.time_base)) / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def read_whole(data: bytes) -> tuple[np.ndarray, int]:
    sound = open_sound(io.BytesIO(data))
    return sound.read(0, sound.n_frames)


@pytest.mark.parametrize("container", ["ts", "matroska", "mp4", "fragments", "live"])
def test_joined_files_with_times_are_one_recording(container):
    parts = [aac(samples, container) for samples in SONGS]
    samples, lost = read_whole(b"".join(parts))
    expected = np.concatenate([read_whole(part)[0] for part in parts])
    assert lost == 0 and len(samples) == len(expected)
    # without a seam between its parts: the decoder of one stream goes on behind it
    near_the_seam = np.abs(np.arange(len(samples)) - len(samples) // 2) < 4_096
    np.testing.assert_allclose(samples[~near_the_seam], expected[~near_the_seam], atol=1e-4)


@pytest.mark.parametrize(
    "container, leap_s",
    [("ts", 30), ("ts", 3_600), ("flv", 72_000), ("matroska", 30), ("mp4", 3_600), ("fragments", 30)],
)
def test_a_leap_of_the_times_is_no_silence(container, leap_s):
    data = aac(SONGS[0], "mp4")
    leaping = shifted(data, container, lambda time_s: leap_s if time_s > 3 else 0)
    samples, lost = read_whole(leaping)
    expected, _ = read_whole(shifted(data, container, lambda _: 0))
    assert lost == 0 and len(samples) == pytest.approx(len(expected), abs=1)
    np.testing.assert_allclose(samples[:-1], expected[: len(samples) - 1], atol=1e-4)


def test_a_late_start_of_the_times_is_no_silence():
    data = shifted(aac(SONGS[0], "mp4"), "ts", lambda _: 36_000)
    assert len(read_whole(data)[0]) / RATE_HZ == pytest.approx(6, abs=0.1)


def test_times_that_stand_still_are_ignored():
    data = by_ffmpeg(song(6, 8_000, 1), "rm", "real_144", 8_000, 8_000)
    samples, lost = read_whole(data)
    assert lost == 0 and len(samples) / 8_000 == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("container", ["matroska", "live"])
def test_bytes_that_are_missing_are_still_lost(container):
    data = aac(np.concatenate(SONGS), container)
    hole = data[: len(data) // 2] + bytes(30_000) + data[len(data) // 2 + 30_000 :]
    samples, lost = read_whole(hole)
    assert len(samples) / RATE_HZ == pytest.approx(12, abs=0.1)
    assert 1 < lost / RATE_HZ < 6.5


def mp3_in_wav(samples: np.ndarray) -> bytes:
    return by_ffmpeg(samples, "wav", "libmp3lame")


@pytest.mark.parametrize("encode", [mp3_in_wav, lambda y: by_ffmpeg(y, "ac3", "ac3"), lambda y: 2 * aac(y, "ts")])
def test_sound_without_times_is_decoded_once_for_all_segments(encode, monkeypatch):
    data = encode(SONGS[0])
    whole, _ = read_whole(data)
    monkeypatch.setattr(sound_file, "_WHOLE_FRAMES", 0)  # as if it were too long to be kept
    sound = open_sound(io.BytesIO(data))
    opened = []
    reopen = FfmpegStream._open
    monkeypatch.setattr(FfmpegStream, "_open", lambda self: opened.append(1) or reopen(self))
    places = [(start, 4_000) for start in (60_000, 0, 20_000, 40_000, 20_100, 80_000)]
    excerpts = read_stretches(sound, Stretches(places=places, are_excerpts=False)).excerpts
    assert len(opened) <= 2  # at the start, and again where segments overlap
    for (start, _), excerpt in zip(places, excerpts, strict=True):
        assert excerpt.start_s == start / 16_000
    for start in (200_000, 100_000, 100_500, 0):
        samples, lost = sound.read(start, 10_000)
        assert lost == 0
        np.testing.assert_allclose(samples, whole[start : start + 10_000], atol=1e-6)


def test_times_of_ordinary_files_are_not_walked_through(monkeypatch):
    def fail(*_):
        raise AssertionError("all packets were read")

    monkeypatch.setattr("mtl_core.audio.decoding.ffmpeg_stream.has_jumps", fail)
    for data in (mp3(SONGS[0]), encoded(SONGS[0], "OGG", "VORBIS"), aac(SONGS[0], "mp4"), encoded(SONGS[0], "FLAC")):
        assert len(read_whole(data)[0]) / RATE_HZ == pytest.approx(6, abs=0.1)
