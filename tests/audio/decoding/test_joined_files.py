"""Files that were joined are one recording: each part is found, in any order of reading, behind any tag."""

import io

import numpy as np
import pytest
from builders.sound_files import RATE_HZ, by_ffmpeg, encoded, song

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.decode import open_sound

SONGS = [song(8, seed=number) for number in range(4)]


def ogg(samples: np.ndarray) -> bytes:
    return encoded(samples, "OGG", "VORBIS")


def flac(samples: np.ndarray) -> bytes:
    return encoded(samples, "FLAC", "PCM_16")


def duration_s(data: bytes) -> float:
    sound = open_sound(io.BytesIO(data))
    return sound.n_frames / sound.rate_hz


def test_views_of_one_file_are_read_by_turns():
    file = io.BytesIO(bytes(range(100)))
    first, second = ByteView(file, 10, 50), ByteView(file, 50, 90)
    assert first.read(3) == bytes([10, 11, 12])
    assert second.read(3) == bytes([50, 51, 52])
    assert first.read(3) == bytes([13, 14, 15]) and first.tell() == 6


@pytest.mark.parametrize("encode", [ogg, flac, lambda y: by_ffmpeg(y, "ogg", "libopus", 48_000)])
def test_joined_files_are_read_in_any_order(encode):
    parts = [encode(samples) for samples in SONGS]
    sounds = [open_sound(io.BytesIO(part)) for part in parts]
    expected = np.concatenate([sound.read(0, sound.n_frames)[0] for sound in sounds])
    sound = open_sound(io.BytesIO(b"".join(parts)))
    assert sound.n_frames == len(expected)
    starts = np.random.default_rng(0).integers(0, sound.n_frames - RATE_HZ, 40)
    for start in starts.tolist():
        samples, lost = sound.read(start, RATE_HZ)
        assert lost == 0
        np.testing.assert_allclose(samples, expected[start : start + RATE_HZ], atol=1e-4, err_msg=f"from {start}")


@pytest.mark.parametrize("n_files", [2, 3, 4, 5, 8, 9, 13])
def test_joined_flac_files_of_one_length_are_found(n_files):
    files = [flac(samples[: 3 * RATE_HZ]) for samples in SONGS]
    assert duration_s(b"".join(files[number % 4] for number in range(n_files))) == 3 * n_files


@pytest.mark.parametrize("quiet_share", [0.2, 0.5, 0.8])
def test_a_flac_file_with_silence_is_one_file(quiet_share):
    samples = np.concatenate([SONGS[0], SONGS[1]])
    samples[: int(quiet_share * len(samples))] = 0
    assert duration_s(flac(samples)) == 16
    assert duration_s(flac(samples[::-1])) == 16


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_joined_file_that_cannot_be_opened_is_lost(damaged):
    parts = [ogg(samples) for samples in SONGS[:3]]
    parts[damaged] = parts[damaged][:28] + bytes(30) + parts[damaged][58:]  # the header of Vorbis
    sound = open_sound(io.BytesIO(b"".join(parts)))
    assert sound.n_frames / RATE_HZ == pytest.approx(24, abs=1)
    samples, lost = sound.read(0, sound.n_frames)
    assert lost / RATE_HZ == pytest.approx(8, abs=1)
    first_good = 0 if damaged else sound.n_frames - 2 * SONGS[1].shape[0]
    expected = open_sound(io.BytesIO(parts[0 if damaged else 1])).read(0, RATE_HZ)[0]
    np.testing.assert_allclose(samples[first_good : first_good + RATE_HZ], expected, atol=1e-4)


def test_an_empty_joined_file_is_not_lost():
    wav, empty = (encoded(samples, "WAV", "PCM_16") for samples in (SONGS[0], SONGS[0][:0]))
    sound = open_sound(io.BytesIO(wav + empty + wav))
    assert sound.n_frames == 2 * len(SONGS[0]) and sound.read(0, sound.n_frames)[1] == 0
