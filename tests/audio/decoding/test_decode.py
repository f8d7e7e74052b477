"""Stretches of recordings are exact at 16 kHz, and a file that is not one has its error."""

import io
from pathlib import Path
from typing import ClassVar

import av
import librosa
import numpy as np
import pytest
import soundfile
from builders.sound_files import by_ffmpeg, decoded_s, encoded, mp3, song

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, Recording, Stretches, open_sound, read_stretches, resample
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.front_end import FrontEnd, read_recording
from mtl_core.audio.segments import excerpt_frames
from mtl_core.errors import ERRORS, TrackError

PAPER, SPREAD = FrontEnd(), FrontEnd(sampling="spread", segments=8)


def noise(n_frames: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n_frames, channels)).astype(np.float32)


def read(data: bytes, front_end: FrontEnd = PAPER) -> Recording:
    return read_recording(io.BytesIO(data), front_end)


def error_of(data: bytes, limits: SoundLimits | None = None) -> str:
    with pytest.raises(TrackError) as caught:
        open_sound(io.BytesIO(data), limits)
    assert caught.value.stage == "decode"
    return caught.value.error


def reference(data: bytes, start: int, length: int) -> np.ndarray:
    """What librosa makes of it: decode the whole file, slice, take the mean of the channels, resample."""
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = librosa.to_mono(samples[start : start + length].T)
    return librosa.resample(mono, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")


@pytest.mark.parametrize(
    "container, rate_hz, atol", [("WAV", 11025, 1e-6), ("FLAC", 8000, 1e-6), ("OGG", 11025, 1e-5), ("MP3", 11025, 1e-5)]
)
def test_an_excerpt_is_what_librosa_makes_of_it(container, rate_hz, atol):
    data = encoded(noise(rate_hz * 125), container, rate_hz=rate_hz)
    recording = read(data)
    assert recording.duration_s == pytest.approx(125, abs=0.1) and recording.lost_s == 0
    planned = excerpt_frames(round(recording.duration_s * rate_hz), rate_hz)
    for excerpt, (start, length) in zip(recording.excerpts, planned, strict=True):
        assert excerpt.samples.dtype == np.float32 and excerpt.samples.shape == (960_000,)
        assert excerpt.start_s == start / rate_hz
        np.testing.assert_allclose(excerpt.samples, reference(data, start, length), atol=atol)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("seconds", [1.5, 40])
def test_a_segment_is_a_part_of_the_whole_resampled_recording(rate_hz, seconds):
    data = encoded(noise(int(rate_hz * seconds)), "WAV", "FLOAT", rate_hz)
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    whole = resample(samples.mean(1), rate_hz)
    recording = read(data, SPREAD)
    assert len(recording.excerpts) == (8 if seconds > 3 else 1)
    for excerpt in recording.excerpts:
        start = round(excerpt.start_s * SAMPLE_RATE_HZ)
        np.testing.assert_allclose(excerpt.samples, whole[start : start + 48_000], atol=1e-6)


def test_stretches_may_be_asked_for_in_any_order_and_again():
    sound = open_sound(io.BytesIO(mp3(song(30))))
    places = [(16_000 * second, 48_000) for second in (20, 3, 20, 21)]
    once = read_stretches(sound, Stretches(places=places, are_excerpts=False)).excerpts
    for place, excerpt in zip(places, once, strict=True):
        (again,) = read_stretches(sound, Stretches(places=[place], are_excerpts=False)).excerpts
        assert again.start_s == excerpt.start_s
        np.testing.assert_allclose(again.samples, excerpt.samples, atol=1e-6)


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
    samples = read(encoded(tone, "WAV", "FLOAT")).excerpts[0].samples
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / SAMPLE_RATE_HZ)
    np.testing.assert_allclose(samples[1000:-1000], expected[1000:-1000], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_mono_is_the_mean_of_the_channels(channels):
    samples = noise(SAMPLE_RATE_HZ, channels)
    ours = read(encoded(samples, "WAV", "FLOAT", SAMPLE_RATE_HZ)).excerpts[0].samples
    np.testing.assert_allclose(ours, samples.mean(axis=1), atol=1e-6)


def test_a_long_recording_of_many_channels_is_never_read_whole(tmp_path):
    path = tmp_path / "long.wav"  # a sparse file: 3 hours of 8 channels are 1.4 GB of zeros, which take no space
    header = bytearray(encoded(noise(16, 8), "WAV", "PCM_16", 8000))
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
        recording = read_recording(file, PAPER)
    assert recording.duration_s == 3 * 3600
    assert [excerpt.start_s for excerpt in recording.excerpts] == [2670, 8070]
    assert Counted.total < 1.1 * 2 * 60 * 8000 * 8 * 2


def wav_header(rate_hz: int = 8000, channels: int = 1, codec: int = 1) -> bytes:
    data = bytearray(encoded(noise(8000, 1), "WAV", "PCM_16", 8000))
    data[20:22] = codec.to_bytes(2, "little")
    data[22:24] = channels.to_bytes(2, "little")
    data[24:28] = rate_hz.to_bytes(4, "little")
    return bytes(data)


def aiff_header(rate: bytes) -> bytes:
    """An AIFF file whose rate is an 80-bit float."""
    data = bytearray(encoded(noise(8000, 1), "AIFF", "PCM_16", 8000))
    at = data.index(b"COMM") + 16
    data[at : at + 10] = rate
    return bytes(data)


def picture() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    "error, data",
    [
        ("not_audio", b""),
        ("not_audio", b"\x00"),
        ("not_audio", b"A poem, not a song: nothing here can be heard."),
        ("not_audio", b"ffconcat version 1.0\nfile song.wav\n"),
        ("not_audio", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n"),
        ("not_audio", b"#EXTM3U\n#EXTINF:10,\nsong.ts\n"),
        ("not_audio", b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(100)),
        ("not_audio", picture()),
        ("unsupported", wav_header(codec=0x1234)),
        ("corrupt", b"\x00\x00\x00\x20ftypM4A " + bytes(100)),
        ("corrupt", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9" + bytes(100)),
        ("corrupt", b"\x1a\x45\xdf\xa3" + bytes(100)),
        ("corrupt", b"fLaC" + bytes(100)),
        ("corrupt", encoded(noise(8000), "OGG", rate_hz=8000)[:500]),
        ("corrupt", b"\xff\xfb"),
        ("corrupt", b"ID3\x03\x00\x00\x00\x00\x0a\x00" + bytes(100)),
        ("corrupt", by_ffmpeg(song(5), "ipod", "aac")[:20_000]),  # its index is at the end
        ("corrupt", wav_header(channels=0)),
        ("corrupt", wav_header(rate_hz=0)),
        ("corrupt", wav_header(rate_hz=1)),
        ("too_large", wav_header(rate_hz=2**31 - 1)),
        ("corrupt", aiff_header(b"\x40\x1d" + b"\xff" * 8)),
        ("too_large", encoded(noise(8000, 255), "WAV", "PCM_16", 8000)),
        ("too_short", encoded(noise(0), "WAV", rate_hz=8000)),
        ("too_short", encoded(noise(799), "WAV", rate_hz=8000)),
    ],
)
def test_each_kind_of_bad_file_has_its_error(error, data):
    assert error_of(data) == error


def test_a_recording_beyond_a_limit_is_too_large():
    flac = encoded(np.zeros((3_600 * 1_000, 1), np.float32), "FLAC", rate_hz=1_000)
    assert len(flac) < 20_000  # 20 kB hold an hour
    assert error_of(flac, SoundLimits(max_duration_s=3_599)) == "too_large"
    assert error_of(encoded(noise(8000), "WAV", rate_hz=8000), SoundLimits(max_channels=1)) == "too_large"
    assert error_of(encoded(noise(8000), "WAV", rate_hz=8000), SoundLimits(max_rate_hz=7_999)) == "too_large"
    for wrong in ({"max_duration_s": 0}, {"max_duration_s": float("inf")}, {"max_channels": 0}, {"max_rate_hz": 999}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            SoundLimits(**wrong)


def test_a_file_of_too_many_joined_files_is_too_large():
    page = encoded(noise(800), "OGG", rate_hz=8000)[:58]
    assert error_of((page + bytes(30)) * 2_001) == "too_large"


def test_a_tenth_of_a_second_is_long_enough():
    assert len(read(encoded(noise(800, 1), "WAV", rate_hz=8000)).excerpts[0].samples) == 1600


def test_the_sound_of_a_film_is_decoded_and_its_default_stream():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        film = out.add_stream("mpeg4", rate=5)
        film.width = film.height = 64
        streams = [out.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(2)]
        streams[1].disposition = av.stream.Disposition.default
        for number in range(10):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24")
            out.mux(film.encode(image))
            for stream, level in zip(streams, (1000, 2000), strict=True):
                frame = av.AudioFrame.from_ndarray(np.full((1, 1600), level, np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts = 8000, 1600 * number
                out.mux(stream.encode(frame))
        for stream in (film, *streams):
            out.mux(stream.encode(None))
    sound = open_sound(io.BytesIO(file.getvalue()))
    assert sound.n_frames == 16_000
    np.testing.assert_allclose(sound.read(0, 16_000)[0], 2000 / 32768)


def test_samples_that_are_nan_are_returned():
    samples = noise(16000, 1)
    samples[7] = np.nan
    assert np.isnan(read(encoded(samples, "WAV", "FLOAT", 16000)).excerpts[0].samples[7])


@pytest.mark.parametrize("failure", [ConnectionResetError("the store went away"), TrackError("fetch", "changed", "")])
@pytest.mark.parametrize("at", [0, 50_000])
def test_the_error_of_reading_the_file_is_raised(failure, at):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= at:
                raise failure
            return super().read(size)

    with pytest.raises(type(failure)) as caught:
        read_recording(Failing(encoded(noise(100_000), "WAV")), PAPER)
    assert caught.value is failure


def test_each_odd_file_is_as_long_as_ffmpeg_says_or_a_named_error(audio: Path):
    outcomes: dict[str, int] = {}
    for path in sorted((audio / "odd-files").iterdir()):
        seconds = decoded_s(path)
        try:
            with path.open("rb") as file:
                sound = open_sound(file)
        except TrackError as error:
            outcome = error.error
            assert outcome in ERRORS["decode"] and seconds < 0.1, path
        else:
            outcome = "recording"
            assert sound.n_frames / sound.rate_hz == pytest.approx(seconds, abs=1e-3), path
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes == {"recording": 73, "corrupt": 28, "not_audio": 12, "too_short": 8}


@pytest.mark.parametrize("folder", ["words", "gtsinger"])
def test_each_real_recording_is_as_long_as_ffmpeg_says(folder: str, audio: Path):
    """Among them words in Vorbis whose last packet claims 27 hours."""
    for path in sorted((audio / folder).rglob("*.*"))[::3]:
        with path.open("rb") as file:
            sound = open_sound(file)
        assert sound.n_frames / sound.rate_hz == pytest.approx(decoded_s(path), abs=1e-3), path


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
        np.testing.assert_allclose(excerpt.samples, expected, atol=1e-5)
