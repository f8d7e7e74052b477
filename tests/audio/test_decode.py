"""Excerpts of recordings are exact in every format, and a file that is not one has its error."""

import io
from pathlib import Path
from typing import ClassVar

import librosa
import numpy as np
import pytest
import soundfile

from mtl_core.audio.decode import SAMPLE_RATE_HZ, Recording, excerpt_frames, read_recording, resample
from mtl_core.errors import TrackError

FORMATS = [
    ("WAV", "PCM_16", 11025),
    ("FLAC", "PCM_16", 8000),
    ("OGG", "VORBIS", 11025),
    ("OGG", "OPUS", 8000),
    ("MP3", "MPEG_LAYER_III", 11025),
]


def noise(n_frames: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n_frames, channels)).astype(np.float32)


def encoded(samples: np.ndarray, rate_hz: int, container: str = "WAV", subtype: str | None = None, **mode) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, samples.shape[1], subtype, format=container, **mode) as sound:
        for at in range(0, len(samples), 1 << 16):  # libsndfile can crash on a long Vorbis file written in one call
            sound.write(samples[at : at + (1 << 16)])
    return file.getvalue()


def read(data: bytes) -> Recording:
    return read_recording(io.BytesIO(data))


def error_of(data: bytes) -> str:
    with pytest.raises(TrackError) as caught:
        read(data)
    assert caught.value.stage == "decode"
    return caught.value.error


def reference(data: bytes, start: int, length: int) -> np.ndarray:
    """What librosa makes of it: decode the whole file, slice, take the mean of the channels, resample."""
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = librosa.to_mono(samples[start : start + length].T)
    return librosa.resample(mono, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")


@pytest.mark.parametrize(
    "n_frames, starts",
    [
        (44100 * 120 - 1, [0]),
        (44100 * 120, [0, 44100 * 60]),
        (44100 * 121, [44100 * 121 // 4 - 44100 * 30, 44100 * 121 * 3 // 4 - 44100 * 30]),
        (44100 * 120 + 1, [0, 44100 * 60]),
        (7522752 + 600003, [(8122755 - 3) // 4 - 1323000, 3 * 8122755 // 4 - 1323000]),
    ],
)
def test_excerpts_are_around_the_quarters_and_inside_the_recording(n_frames, starts):
    excerpts = excerpt_frames(n_frames, 44100)
    assert [start for start, _ in excerpts] == starts
    assert all(length == (44100 * 60 if len(starts) == 2 else n_frames) for _, length in excerpts)
    assert all(start + length <= n_frames for start, length in excerpts)


@pytest.mark.parametrize("container, subtype, rate_hz", FORMATS)
def test_seeking_to_an_excerpt_equals_slicing_the_whole_decode(container, subtype, rate_hz):
    data = encoded(noise(rate_hz * 125), rate_hz, container, subtype)
    recording = read(data)
    n_frames = round(recording.duration_s * rate_hz)
    assert recording.duration_s == pytest.approx(125, abs=0.1)
    for excerpt, (start, length) in zip(recording.excerpts, excerpt_frames(n_frames, rate_hz), strict=True):
        assert excerpt.samples.dtype == np.float32 and excerpt.samples.shape == (960_000,)
        assert excerpt.start_s == start / rate_hz
        np.testing.assert_allclose(excerpt.samples, reference(data, start, length), atol=1e-6)


@pytest.mark.parametrize("rate_hz, mode, compression_level", [(24000, "CONSTANT", 0.99), (8000, "VARIABLE", 0.99)])
def test_seeking_is_exact_in_an_mp3_whose_frames_use_many_earlier_bytes(rate_hz, mode, compression_level):
    loudness = np.repeat(np.random.default_rng(1).uniform(0, 1, 1250), rate_hz // 10)[:, None].astype(np.float32)
    samples = noise(rate_hz * 125, 1) * loudness
    data = encoded(samples, rate_hz, "MP3", bitrate_mode=mode, compression_level=compression_level)
    recording = read(data)
    planned = excerpt_frames(round(recording.duration_s * rate_hz), rate_hz)
    for excerpt, (start, length) in zip(recording.excerpts, planned, strict=True):
        np.testing.assert_allclose(excerpt.samples, reference(data, start, length), atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("n_samples", [4410, 44101, 132300, 99999])
def test_resampling_equals_that_of_librosa(rate_hz, n_samples):
    samples = noise(n_samples, 1)[:, 0]
    ours = resample(samples, rate_hz)
    theirs = librosa.resample(samples, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")
    assert len(ours) == -(-n_samples * SAMPLE_RATE_HZ // rate_hz)
    # librosa computes its length in floating point: where N 16000 / rate is whole, it may add a zero
    assert len(theirs) - len(ours) in (0, 1)
    np.testing.assert_array_equal(ours, theirs[: len(ours)])


def test_a_tone_keeps_its_pitch_and_level():
    time_s = np.arange(44100 * 2) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time_s).astype(np.float32)[:, None]
    samples = read(encoded(tone, 44100, "WAV", "FLOAT")).excerpts[0].samples
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / SAMPLE_RATE_HZ)
    np.testing.assert_allclose(samples[1000:-1000], expected[1000:-1000], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_mono_is_the_mean_of_the_channels(channels):
    samples = noise(SAMPLE_RATE_HZ, channels)
    ours = read(encoded(samples, SAMPLE_RATE_HZ, "WAV", "FLOAT")).excerpts[0].samples
    np.testing.assert_allclose(ours, samples.mean(axis=1), atol=1e-6)


def test_a_long_recording_of_many_channels_is_never_read_whole(tmp_path):
    path = (
        tmp_path / "long.wav"
    )  # a sparse file: 3 hours of 8 channels are 1.4 GB of zeros, which take no space on the disk
    header = bytearray(encoded(noise(16, 8), 8000, "WAV", "PCM_16"))
    data_bytes = 3 * 3600 * 8000 * 8 * 2
    at = header.index(b"data")
    header[4:8] = (at + data_bytes).to_bytes(4, "little")
    header[at + 4 : at + 8] = data_bytes.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header[: at + 8])
        file.truncate(at + 8 + data_bytes)

    class Counted(io.FileIO):
        total: ClassVar[int] = 0

        def read(self, size=-1):
            Counted.total += size
            return super().read(size)

    with Counted(path) as file:
        recording = read_recording(file)
    assert recording.duration_s == 3 * 3600
    assert [excerpt.start_s for excerpt in recording.excerpts] == [2670, 8070]
    assert Counted.total < 1.1 * 2 * 60 * 8000 * 8 * 2


@pytest.mark.parametrize("container, subtype, rate_hz", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_recording_is_a_shorter_one(container, subtype, rate_hz, kept):
    data = encoded(noise(rate_hz * 150, 1), rate_hz, container, subtype)
    truncated = read(data[: int(len(data) * kept)])
    assert truncated.duration_s == pytest.approx(150 * kept, abs=1.5)
    planned = excerpt_frames(round(truncated.duration_s * rate_hz), rate_hz)
    assert [excerpt.start_s for excerpt in truncated.excerpts] == [start / rate_hz for start, _ in planned]
    assert [len(e.samples) for e in truncated.excerpts] == [-(-n * SAMPLE_RATE_HZ // rate_hz) for _, n in planned]
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    (start, length) = planned[-1]
    expected = resample(whole[start : start + length], rate_hz)
    np.testing.assert_allclose(truncated.excerpts[-1].samples, expected, atol=1e-6)


def test_a_recording_of_unknown_length_is_counted():
    data = bytearray(encoded(noise(8000 * 130, 1), 8000, "FLAC"))
    data[21] &= 0xF0  # STREAMINFO: total samples, 36 bits, 0 = unknown
    data[22:26] = bytes(4)
    assert read(bytes(data)).duration_s == 130
    np.testing.assert_array_equal(
        read(bytes(data)).excerpts[1].samples, read(encoded(noise(8000 * 130, 1), 8000, "FLAC")).excerpts[1].samples
    )


def wav_header(rate_hz: int = 8000, channels: int = 1, codec: int = 1) -> bytes:
    data = bytearray(encoded(noise(8000, 1), 8000, "WAV", "PCM_16"))
    data[20:22] = codec.to_bytes(2, "little")
    data[22:24] = channels.to_bytes(2, "little")
    data[24:28] = rate_hz.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "error, data",
    [
        ("not_audio", b""),
        ("not_audio", b"\x00"),
        ("not_audio", b"A poem, not a song: nothing here can be heard."),
        ("not_audio", b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(100)),
        ("unsupported", b"\x00\x00\x00\x20ftypM4A " + bytes(100)),
        ("unsupported", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9" + bytes(100)),
        ("unsupported", b"\x1a\x45\xdf\xa3" + bytes(100)),
        ("unsupported", b"\xff\xf1\x50\x80" + bytes(100)),
        ("unsupported", b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + b"\xff\xf1\x50\x80" + bytes(100)),
        ("unsupported", wav_header(codec=0x161)),
        ("corrupt", b"fLaC" + bytes(100)),
        ("corrupt", encoded(noise(8000), 8000, "OGG")[:500]),
        ("corrupt", b"\xff\xfb"),
        ("corrupt", b"ID3\x03\x00\x00\x00\x00\x0a\x00" + bytes(100)),
        ("corrupt", wav_header(channels=0)),
        ("corrupt", wav_header(rate_hz=0)),
        ("corrupt", wav_header(rate_hz=1)),
        ("corrupt", wav_header(rate_hz=2**31 - 1)),
        ("too_short", encoded(noise(0), 8000)),
        ("too_short", encoded(noise(799), 8000)),
    ],
)
def test_each_kind_of_bad_file_has_its_error(error, data):
    assert error_of(data) == error


def test_a_tenth_of_a_second_is_long_enough():
    assert len(read(encoded(noise(800, 1), 8000)).excerpts[0].samples) == 1600


def test_samples_that_are_nan_are_returned():
    samples = noise(16000, 1)
    samples[7] = np.nan
    assert np.isnan(read(encoded(samples, 16000, "WAV", "FLOAT")).excerpts[0].samples[7])


def test_the_error_of_reading_the_file_is_raised():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 50_000:
                raise ConnectionResetError("the store went away")
            return super().read(size)

    with pytest.raises(ConnectionResetError, match="went away"):
        read_recording(Failing(encoded(noise(100_000), 44100)))


@pytest.mark.parametrize("container, subtype, rate_hz", FORMATS)
def test_damaged_bytes_give_a_recording_or_a_named_error(container, subtype, rate_hz):
    good = encoded(noise(rate_hz * 2), rate_hz, container, subtype)
    random = np.random.default_rng(0)
    for _ in range(40):
        data = np.frombuffer(good, np.uint8).copy()
        reach = len(data) if random.random() < 0.5 else 200  # half of them damage only the headers
        data[random.integers(0, reach, random.integers(1, 20))] = random.integers(0, 256)
        try:
            recording = read(data.tobytes()[: random.integers(len(data) // 2, len(data))])
        except TrackError as error:
            assert error.stage == "decode"
        else:
            assert all(len(excerpt.samples) >= 1600 for excerpt in recording.excerpts)


def test_each_odd_file_is_a_recording_or_a_named_error(audio: Path):
    outcomes: dict[str, int] = {}
    for path in sorted((audio / "odd-files").iterdir()):
        try:
            with path.open("rb") as file:
                outcome = "recording" if read_recording(file).excerpts else "none"
        except TrackError as error:
            outcome = error.error
            assert (outcome == "unsupported") <= (path.suffix in {".m4a", ".mp4", ".wma", ".x"}), path
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes == {"recording": 61, "corrupt": 25, "unsupported": 18, "not_audio": 12, "too_short": 5}


@pytest.mark.parametrize(
    "name",
    [
        "ultrastar/Jonathan Coulton - A Talk with George.mp3",  # its header claims 7,856 frames too many
        "jamendolyrics/Confession_-_Quesabe.mp3",
        "ultrastar/Jonathan Coulton - Code Monkey.ogg",
        "hyperrogue/lowres_rlyeh.ogg",
    ],
)
def test_seeking_is_exact_in_real_songs(name: str, audio: Path):
    data = (audio / "songs" / name).read_bytes()
    for excerpt in read(data).excerpts:
        expected = reference(data, round(excerpt.start_s * 44100), 60 * 44100)
        np.testing.assert_allclose(excerpt.samples, expected, atol=1e-6)
