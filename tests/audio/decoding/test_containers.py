"""Sound is found behind tags and other bytes, also where the file lacks its beginning; other files are named."""

import io

import av
import numpy as np
import pytest
from builders.sound_files import RATE_HZ, by_ffmpeg, claiming_frames, claiming_samples, encoded, id3_tag, mp3, song

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.containers import has_signature
from mtl_core.audio.decoding.decode import open_sound
from mtl_core.audio.decoding.headers.mpeg import tag_bytes

SONG = song(8)
TAG = id3_tag(3_000)
FOOTER = TAG[:5] + b"\x10" + TAG[6:] + b"3DI" + TAG[3:10]
LYRICS = b"LYRICSBEGIN" + b"la la la " * 3_000 + b"027011LYRICS200"


def flac(samples: np.ndarray = SONG) -> bytes:
    return encoded(samples, "FLAC", "PCM_16")


def ogg(samples: np.ndarray = SONG) -> bytes:
    return encoded(samples, "OGG", "VORBIS")


def duration_s(data: bytes) -> float:
    sound = open_sound(io.BytesIO(data))
    return sound.n_frames / sound.rate_hz


@pytest.mark.parametrize("tags", [TAG, TAG + id3_tag(100_000), FOOTER])
@pytest.mark.parametrize(
    "data, seconds",
    [
        (lambda: flac() + flac(), 16),
        (lambda: ogg() + ogg(song(8, seed=1)), 16),
        (lambda: claiming_samples(flac(), 0.5), 8),
        (lambda: encoded(SONG, "WAV", "PCM_16"), 8),
        (lambda: by_ffmpeg(SONG, "ipod", "aac"), 8),
        (lambda: claiming_frames(mp3(SONG, mode="VARIABLE"), 0.25), 8),
    ],
    ids=["joined flac", "chained ogg", "a flac that claims half", "wav", "m4a", "an mp3 that claims a quarter"],
)
def test_tags_before_the_sound_change_nothing(tags, data, seconds):
    assert duration_s(tags + data()) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("encode", [mp3, flac])
def test_sound_behind_a_tag_of_a_wrong_size_is_found(encode):
    damaged = TAG[:6] + b"\x7f\x7f\x7f\x7f" + TAG[10:]
    assert duration_s(damaged + encode(SONG)) == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    "encode",
    [
        lambda y: by_ffmpeg(y, "wv", "wavpack"),
        lambda y: by_ffmpeg(y, "tta", "tta"),
        lambda y: encoded(y, "CAF", "PCM_16"),
        lambda y: encoded(y, "AU", "PCM_16"),
        lambda y: encoded(y, "W64", "PCM_16"),
        lambda y: encoded(y, "AIFF", "PCM_16"),
    ],
    ids=["wavpack", "tta", "caf", "au", "w64", "aiff"],
)
def test_sound_behind_zeros_is_found(encode):
    data = encode(SONG)
    for n_bytes in (1, 3_000):
        assert duration_s(bytes(n_bytes) + data) == 8


def test_a_flac_file_without_its_beginning_is_decoded():
    data = flac()
    cut = data[len(data) // 2 :]
    sound = open_sound(io.BytesIO(cut))
    assert sound.n_frames / RATE_HZ == pytest.approx(4, abs=0.5)
    expected = SONG[-sound.n_frames :].mean(1)
    samples, lost = sound.read(RATE_HZ, RATE_HZ)
    assert lost == 0
    np.testing.assert_allclose(samples, expected[RATE_HZ : 2 * RATE_HZ], atol=1e-4)


@pytest.mark.parametrize("text", ["A poem, not a song.\n" * 20, "Ein schöner Text über Æther", "стихи и песни"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_not_audio(text, coding):
    assert not has_signature(text.encode(coding)[:36])


def test_mpeg_audio_has_a_signature():
    for data in (mp3(SONG), by_ffmpeg(SONG, "adts", "aac"), by_ffmpeg(SONG, "mp2", "mp2")):
        assert has_signature(data[:36])


@pytest.mark.parametrize("tag", [TAG, FOOTER, LYRICS, b"TAG" + bytes(125)], ids=["ID3", "footer", "Lyrics3", "ID3v1"])
def test_the_size_of_a_tag_is_known(tag):
    view = ByteView(io.BytesIO(bytes(7) + tag + mp3(SONG)))
    assert tag_bytes(view, 7) == len(tag)
    assert tag_bytes(view, 7 + len(tag)) == 0


def wavpack(samples: np.ndarray, sample_format: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wv") as out:
        stream = out.add_stream("wavpack", rate=RATE_HZ, layout="stereo", format=sample_format)
        resampler = av.AudioResampler(format=sample_format, layout="stereo", rate=RATE_HZ)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = RATE_HZ
        for ready in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
    return file.getvalue()


def test_joined_wavpack_files_are_found_behind_the_tag_of_each():
    tag = b"APETAGEX" + (2_000).to_bytes(4, "little") + (500).to_bytes(4, "little") + bytes(516)
    assert duration_s(3 * (wavpack(SONG[: 2 * RATE_HZ], "s16p") + tag)) == 6


def test_joined_files_may_have_other_sample_formats():
    samples = SONG[: 2 * RATE_HZ]
    parts = [wavpack(samples, "s16p"), wavpack(samples, "s32p"), wavpack(samples, "fltp")]
    sound = open_sound(io.BytesIO(b"".join(parts)))
    assert sound.n_frames == 6 * RATE_HZ
    mono, lost = sound.read(0, sound.n_frames)
    assert lost == 0
    np.testing.assert_allclose(mono, np.tile(samples.mean(1), 3), atol=1e-4)
