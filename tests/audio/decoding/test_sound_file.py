"""Samples from any position equal those of a whole decode, in every format; damage is passed over and counted."""

import io

import av
import numpy as np
import pytest
from builders.sound_files import (
    EXACT_FORMATS,
    RATE_HZ,
    by_ffmpeg,
    claiming_bytes,
    claiming_frames,
    claiming_samples,
    encoded,
    id3_tag,
    mp3,
    song,
    with_hole,
    without_xing,
)

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.containers import find_parts
from mtl_core.audio.decoding.decode import open_sound
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.sound_file import StreamSound

SECONDS = 30
SONG = song(SECONDS)
SCALES = {"u8": 2**-7, "s16": 2**-15, "s32": 2**-31, "flt": 1.0, "dbl": 1.0}


def whole_decode(data: bytes) -> np.ndarray:
    """The mean of the channels (N,) of all frames that PyAV decodes, one behind the other."""
    mono = []
    with av.open(io.BytesIO(data), metadata_errors="replace") as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float32)
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            samples -= 128 * frame.format.name.startswith("u8")
            mono.append(samples.mean(0) * np.float32(SCALES[frame.format.name.removesuffix("p")]))
    return np.concatenate(mono)


def open_unkept(data: bytes) -> StreamSound:
    """A sound that is decoded anew for each read, as a long one is."""
    (part,) = find_parts(ByteView(io.BytesIO(data)))
    return StreamSound(part, SoundLimits(), keep=False)


def duration_s(data: bytes) -> float:
    sound = open_sound(io.BytesIO(data))
    return sound.n_frames / sound.rate_hz


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: encode(SONG) for name, encode in EXACT_FORMATS.items()}


@pytest.mark.parametrize("name", EXACT_FORMATS)
def test_any_stretch_equals_a_slice_of_the_whole_decode(name, files):
    sound, expected = open_unkept(files[name]), whole_decode(files[name])
    assert sound.n_frames == len(expected)
    random = np.random.default_rng(0)
    starts = [0, 1, *random.integers(0, sound.n_frames - RATE_HZ, 12).tolist(), sound.n_frames - RATE_HZ]
    for start in starts:
        samples, lost = sound.read(start, RATE_HZ)
        assert samples.dtype == np.float32 and lost == 0
        np.testing.assert_allclose(samples, expected[start : start + RATE_HZ], atol=1e-4, err_msg=f"from {start}")


@pytest.mark.parametrize("name", EXACT_FORMATS)
def test_the_length_is_that_of_the_recording(name, files):
    rate_hz = 48_000 if "opus" in name else RATE_HZ  # the same samples are fewer seconds at 48 kHz
    assert duration_s(files[name]) == pytest.approx(SECONDS * RATE_HZ / rate_hz, abs=0.1)


@pytest.mark.parametrize("name", ["flac", "mp3", "vorbis", "m4a", "wma"])
def test_a_short_recording_is_kept_and_gives_the_same(name, files):
    kept, unkept = open_sound(io.BytesIO(files[name])), open_unkept(files[name])
    assert kept.n_frames == unkept.n_frames
    for start in (0, 12_345, kept.n_frames - 1000):
        np.testing.assert_allclose(kept.read(start, 1000)[0], unkept.read(start, 1000)[0], atol=1e-5)


@pytest.mark.parametrize("seconds, rate_hz, mode", [(125, 24_000, "CONSTANT"), (125, 8_000, "VARIABLE")])
def test_seeking_is_exact_in_an_mp3_whose_frames_use_many_earlier_bytes(seconds, rate_hz, mode):
    random = np.random.default_rng(1)
    loudness = np.repeat(random.uniform(0, 1, 10 * seconds), rate_hz // 10)[:, None]
    noise = (random.uniform(-0.5, 0.5, (len(loudness), 1)) * loudness).astype(np.float32)
    data = encoded(noise, "MP3", rate_hz=rate_hz, bitrate_mode=mode, compression_level=0.99)
    sound, expected = open_unkept(data), whole_decode(data)
    for start in random.integers(0, sound.n_frames - rate_hz, 20).tolist():
        np.testing.assert_allclose(sound.read(start, rate_hz)[0], expected[start : start + rate_hz], atol=1e-6)


JOINED = [song(8, seed=number) for number in range(3)]
CLAIMS = {
    "an mp3 with a variable bit rate and no header": lambda: without_xing(mp3(SONG, mode="VARIABLE")),
    "an mp3 that claims a quarter": lambda: claiming_frames(mp3(SONG, mode="VARIABLE"), 0.25),
    "an mp3 that claims ten times": lambda: claiming_frames(mp3(SONG), 10),
    "a flac that claims half": lambda: claiming_samples(encoded(SONG, "FLAC", "PCM_16"), 0.5),
    "a flac that claims twice": lambda: claiming_samples(encoded(SONG, "FLAC", "PCM_16"), 2),
    "a flac that claims nothing": lambda: claiming_samples(encoded(SONG, "FLAC", "PCM_16"), 0),
    "a wav that claims nothing": lambda: claiming_bytes(encoded(SONG, "WAV", "PCM_16"), 0),
    "a wav that claims half": lambda: claiming_bytes(encoded(SONG, "WAV", "PCM_16"), 0.5),
    "a wav that claims 100 times": lambda: claiming_bytes(encoded(SONG, "WAV", "PCM_16"), 100),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_wrong_length_in_a_header_is_not_believed(name):
    data, expected = CLAIMS[name](), whole_decode(encoded(SONG, "WAV", "PCM_16"))
    assert duration_s(data) == pytest.approx(SECONDS, abs=0.1)
    samples, lost = open_unkept(data).read(20 * RATE_HZ, RATE_HZ)
    assert lost == 0
    if "mp3" not in name:
        np.testing.assert_allclose(samples, expected[20 * RATE_HZ : 21 * RATE_HZ], atol=1e-4)


@pytest.mark.parametrize(
    "encode",
    [
        mp3,
        lambda y: encoded(y, "OGG", "VORBIS"),
        lambda y: encoded(y, "FLAC", "PCM_16"),
        lambda y: encoded(y, "WAV", "PCM_16"),
        lambda y: by_ffmpeg(y, "adts", "aac", aac_pns="0"),
    ],
)
def test_joined_files_are_one_recording(encode):
    parts = [encode(y) for y in JOINED]
    sound = open_sound(io.BytesIO(b"".join(parts)))
    assert sound.n_frames / RATE_HZ == pytest.approx(24, abs=0.25)  # an encoder's padding is sound at a join
    if parts[0][:3] in (b"Ogg", b"fLa", b"RIF"):
        first = open_sound(io.BytesIO(parts[0])).n_frames
        second = open_sound(io.BytesIO(parts[1])).read(0, RATE_HZ)[0]
        np.testing.assert_allclose(sound.read(first, RATE_HZ)[0], second, atol=1e-5)
        assert sound.read(first - 100, 200)[1] == 0


def test_joined_files_of_equal_length_are_found():
    flac = encoded(JOINED[0], "FLAC", "PCM_16")
    assert duration_s(flac + flac) == pytest.approx(16, abs=0.01)


def test_joined_files_may_have_other_rates_and_channels():
    for encode in (lambda y, rate: encoded(y, "OGG", "VORBIS", rate), mp3):
        data = encode(song(8), RATE_HZ) + encode(song(8, 32_000, 1), 32_000)
        assert duration_s(data) == pytest.approx(16, abs=0.2)


@pytest.mark.parametrize(
    "first",
    [b"\0", bytes(3000), b"ICY 200 OK\r\nicy-name: radio\r\n\r\n", id3_tag(10) + id3_tag(200_000)],
    ids=["a zero", "zeros", "radio headers", "two tags"],
)
@pytest.mark.parametrize("name", ["mp3", "flac", "vorbis", "wav", "m4a", "aac", "wma"])
def test_sound_behind_something_else_is_found(first, name, files):
    if name == "aac" and first[:1] == b"\0":
        pytest.skip("ADTS behind zeros")
    if len(first) > 65_536 and name not in ("mp3", "aac", "flac"):
        pytest.skip("only MPEG and Flac files have tags of this size")
    assert duration_s(first + files[name]) == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("name", ["mp3", "flac", "vorbis", "opus", "m4a", "aac", "wma", "flac in mka", "wav"])
def test_damage_in_the_middle_is_passed_over_and_counted(name, files):
    data = with_hole(files[name], 0.5, 4000 if name not in ("flac", "flac in mka", "wav") else 40_000)
    sound = open_sound(io.BytesIO(data))
    good = open_sound(io.BytesIO(files[name]))
    assert sound.n_frames == pytest.approx(good.n_frames, abs=0.6 * sound.rate_hz)
    last, lost_last = sound.read(sound.n_frames - 5 * sound.rate_hz, 2 * sound.rate_hz)
    assert lost_last == 0 and np.abs(last).max() > 0.01
    _, lost = sound.read(0, sound.n_frames)
    assert (0.02 if name != "wav" else 0) <= lost / sound.rate_hz < (5.1 if "mka" in name else 2.5)  # its clusters


@pytest.mark.parametrize("n_bytes", [4096, 20_000, 40_000])
def test_the_seconds_lost_of_an_mp3_are_those_of_its_bytes(n_bytes, files):
    data = with_hole(files["mp3"], 0.5, n_bytes)
    sound = open_sound(io.BytesIO(data))
    lost = sound.read(0, sound.n_frames)[1] / RATE_HZ
    assert lost == pytest.approx(SECONDS * n_bytes / len(data), abs=0.15)


def test_a_tag_between_joined_files_is_no_damage():
    data = mp3(song(8)) + id3_tag(50_000) + mp3(song(8, seed=1))
    sound = open_sound(io.BytesIO(data))
    assert sound.n_frames / RATE_HZ == pytest.approx(16, abs=0.5)  # a few frames are found in the picture
    assert sound.read(0, sound.n_frames)[1] < 0.3 * RATE_HZ


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "mp3, VBR", "vorbis", "opus", "wma", "aac", "flac in mka"])
def test_a_truncated_recording_is_a_shorter_one(name, kept, files):
    data = files[name]
    whole_s = duration_s(data)
    assert duration_s(data[: int(kept * len(data))]) == pytest.approx(kept * whole_s, abs=0.07 * whole_s)


def test_an_inverted_channel_does_not_silence_a_recording():
    samples = song(10, channels=1)
    data = encoded(np.concatenate([samples, -samples], 1), "WAV", "FLOAT")
    for sound in (open_sound(io.BytesIO(data)), open_unkept(data)):
        np.testing.assert_allclose(sound.read(RATE_HZ, RATE_HZ)[0], samples[RATE_HZ : 2 * RATE_HZ, 0], atol=1e-6)


def test_a_wide_recording_stays_the_mean_of_its_channels():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE_HZ, 32)).astype(np.float32)
    data = encoded(samples, "WAV", "FLOAT")
    np.testing.assert_allclose(open_sound(io.BytesIO(data)).read(0, RATE_HZ)[0], samples.mean(1), atol=1e-6)
