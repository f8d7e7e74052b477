"""Sound files of any format, made in memory; and what users' files do to them."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

RATE_HZ = 44_100


def song(seconds: float, rate_hz: int = RATE_HZ, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Notes with bursts of noise (N, channels) float32, different at every moment: nothing can hide."""
    rng = np.random.default_rng(seed)
    n, at = round(seconds * rate_hz), 0
    samples = np.zeros((n, channels), np.float32)
    while at < n:
        length = min(int(rng.uniform(0.15, 0.6) * rate_hz), n - at)
        time_s = np.arange(length) / rate_hz
        pitch_hz = 110 * 2 ** (rng.integers(0, 36) / 12)
        tone = sum(np.sin(2 * np.pi * k * pitch_hz * time_s + rng.uniform(0, 6)) / k for k in range(1, 9))
        tone = tone * np.exp(-3 * time_s)
        burst = rng.standard_normal(length) * np.exp(-40 * time_s)
        for channel in range(channels):
            samples[at : at + length, channel] = (0.18 - 0.04 * (channel % 2)) * tone + 0.05 * burst
        at += length
    return samples


def encoded(samples: np.ndarray, container: str, subtype: str | None = None, rate_hz: int = RATE_HZ, **mode) -> bytes:
    """As libsndfile writes it: WAV, FLAC, OGG, MP3, AIFF …"""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, samples.shape[1], subtype, format=container, **mode) as sound:
        for at in range(0, len(samples), 1 << 16):  # libsndfile can crash on a long Vorbis file written in one call
            sound.write(samples[at : at + (1 << 16)])
    return file.getvalue()


def mp3(samples: np.ndarray, rate_hz: int = RATE_HZ, mode: str = "CONSTANT") -> bytes:
    return encoded(samples, "MP3", "MPEG_LAYER_III", rate_hz, bitrate_mode=mode, compression_level=0.5)


def by_ffmpeg(
    samples: np.ndarray,
    container: str,
    codec: str,
    rate_hz: int = RATE_HZ,
    bit_rate: int = 128_000,
    muxer: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """As ffmpeg writes it: ("ipod", "aac"), ("asf", "wmav2"), ("webm", "libopus") … `options` are the codec's."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=rate_hz, options=options)
        stream.layout = "stereo" if samples.shape[1] == 2 else "mono"
        stream.bit_rate = bit_rate
        wanted = stream.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(format=wanted, layout=stream.layout, rate=rate_hz)
        for start in range(0, len(samples), 4096):
            part = np.ascontiguousarray(samples[start : start + 4096].T)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=stream.layout.name)
            frame.sample_rate, frame.pts = rate_hz, start
            for ready in resampler.resample(frame):
                out.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
    return file.getvalue()


#: Of the muxer of mp4: an index for each second instead of one for the file, as streaming services send it.
FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}

#: name -> encoder of (samples at `RATE_HZ`) whose decoder gives the same samples after a seek as in a whole decode.
EXACT_FORMATS: dict[str, Callable[[np.ndarray], bytes]] = {
    "wav": lambda y: encoded(y, "WAV", "PCM_16"),
    "wav, float": lambda y: encoded(y, "WAV", "FLOAT"),
    "wav, mu-law": lambda y: encoded(y, "WAV", "ULAW"),
    "wav, IMA ADPCM": lambda y: encoded(y, "WAV", "IMA_ADPCM"),
    "wav, GSM": lambda y: encoded(y[:, :1], "WAV", "GSM610"),
    "w64": lambda y: encoded(y, "W64", "PCM_24"),
    "aiff": lambda y: encoded(y, "AIFF", "PCM_16"),
    "au": lambda y: encoded(y, "AU", "PCM_16"),
    "caf": lambda y: encoded(y, "CAF", "PCM_16"),
    "flac": lambda y: encoded(y, "FLAC", "PCM_16"),
    "flac in ogg": lambda y: by_ffmpeg(y, "ogg", "flac"),
    "flac in mka": lambda y: by_ffmpeg(y, "matroska", "flac"),
    "alac": lambda y: by_ffmpeg(y, "ipod", "alac"),
    "wavpack": lambda y: by_ffmpeg(y, "wv", "wavpack"),
    "tta": lambda y: by_ffmpeg(y, "tta", "tta"),
    "mp3": mp3,
    "mp3, VBR": lambda y: mp3(y, mode="VARIABLE"),
    "mp3 in mka": lambda y: by_ffmpeg(y, "matroska", "libmp3lame"),
    "mp3 in wav": lambda y: by_ffmpeg(y, "wav", "libmp3lame"),
    "mp2": lambda y: by_ffmpeg(y, "mp2", "mp2", bit_rate=192_000),
    "vorbis": lambda y: encoded(y, "OGG", "VORBIS"),
    "opus": lambda y: encoded(y, "OGG", "OPUS", 48_000),
    "opus in webm": lambda y: by_ffmpeg(y, "webm", "libopus", 48_000),
    "m4a": lambda y: by_ffmpeg(y, "ipod", "aac", aac_pns="0"),
    "mp4": lambda y: by_ffmpeg(y, "mp4", "aac", aac_pns="0"),
    "mp4, fragmented": lambda y: by_ffmpeg(y, "mp4", "aac", aac_pns="0", muxer=FRAGMENTS),
    "aac": lambda y: by_ffmpeg(y, "adts", "aac", aac_pns="0"),
    "aac in mka": lambda y: by_ffmpeg(y, "matroska", "aac", aac_pns="0"),
    "aac in flv": lambda y: by_ffmpeg(y, "flv", "aac", aac_pns="0"),
    "aac in ts": lambda y: by_ffmpeg(y, "mpegts", "aac", aac_pns="0"),
    "wma": lambda y: by_ffmpeg(y, "asf", "wmav2"),
    "wma 1": lambda y: by_ffmpeg(y, "asf", "wmav1"),
    "ac3": lambda y: by_ffmpeg(y, "ac3", "ac3"),
}


def decoded_s(path: Path) -> float:
    """Seconds that PyAV decodes of a file; 0 where it cannot open it, or finds no sound."""
    seconds = 0.0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for packet in container.demux(audio=0) if container.streams.audio else ():
                try:
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.error.FFmpegError:
                    continue  # a damaged packet
    except av.error.FFmpegError:
        pass  # no file of sound
    return seconds


def mp3_frames(data: bytes) -> list[tuple[int, int]]:
    """(offset, bytes) of the frames of an MPEG 1 layer III file without tags."""
    found, at = [], 0
    kbit = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    while at + 4 <= len(data):
        assert data[at] == 255 and data[at + 1] & 0xFE == 0xFA
        rate_hz = [44_100, 48_000, 32_000][(data[at + 2] >> 2) & 3]
        size = 144 * kbit[data[at + 2] >> 4] * 1000 // rate_hz + ((data[at + 2] >> 1) & 1)
        found.append((at, size))
        at += size
    return found


def without_xing(data: bytes) -> bytes:
    """An mp3 without its first frame, which holds the Xing or Info header."""
    return data[mp3_frames(data)[0][1] :]


def claiming_frames(data: bytes, share: float) -> bytes:
    """An mp3 whose Xing or Info header claims this share of its frames."""
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return data[:at] + int(share * int.from_bytes(data[at : at + 4])).to_bytes(4) + data[at + 4 :]


def claiming_samples(data: bytes, share: float) -> bytes:
    """A Flac file whose STREAMINFO claims this share of its samples; 0: unknown."""
    packed = int.from_bytes(data[21:26])
    claimed = int(share * (packed & 0xF_FFFF_FFFF))
    return data[:21] + (packed & ~0xF_FFFF_FFFF | claimed).to_bytes(5) + data[26:]


def claiming_bytes(data: bytes, share: float) -> bytes:
    """A WAV file whose chunk "data" claims this share of its bytes."""
    at = data.index(b"data") + 4
    size = int(share * int.from_bytes(data[at : at + 4], "little"))
    return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]


def with_hole(data: bytes, share: float, n_bytes: int) -> bytes:
    """A file with zeros from a share of its bytes on."""
    at = int(share * len(data))
    return data[:at] + bytes(n_bytes) + data[at + n_bytes :]


def id3_tag(n_bytes: int) -> bytes:
    """An ID3 tag with a picture of random bytes."""
    body = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(n_bytes)
    frame = b"APIC" + _synchsafe(len(body)) + b"\0\0" + body
    return b"ID3\4\0\0" + _synchsafe(len(frame)) + frame


def _synchsafe(n: int) -> bytes:
    return bytes((n >> shift) & 127 for shift in (21, 14, 7, 0))
