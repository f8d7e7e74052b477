"""Base files: the files that `mutate` damages; the same bytes in every run."""

import io
import re
import struct
import zlib

import av
import numpy as np
from builders.sound_files import (
    EXACT_FORMATS,
    RATE_HZ,
    claiming_bytes,
    claiming_frames,
    claiming_samples,
    encoded,
    id3_tag,
    song,
    without_xing,
)

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
#: What encoders draw at random or take from the clock: IDs and checksums of Matroska, the time in a chunk "PEAK".
_DRAWN = re.compile(
    rb"(?<=\x73\xa4\x90)[\s\S]{16}|(?<=\x73\xc5\x88)[\s\S]{8}|(?<=\x63\xc5\x88)[\s\S]{8}|(?<=\xbf\x84)[\s\S]{4}"
    rb"|(?<=PEAK[\s\S]{4}\x01\x00\x00\x00)[\s\S]{4}"
)


def base_files() -> dict[str, bytes]:
    """The files that are mutated: 3 to 5 s in every format, and joined ones; the same bytes in every run."""
    songs = [song(3 + 0.5 * number, channels=1 + number % 2, seed=number) for number in range(5)]
    files = {name: encode(songs[i % len(songs)]) for i, (name, encode) in enumerate(EXACT_FORMATS.items())}
    files = {name: settled(data) for name, data in files.items()}
    flac, wav = files["flac"], files["wav"]
    return files | {
        "5.1 wav": encoded(song(3, channels=6), "WAV", "PCM_16"),
        "wav, 96 kHz": encoded(songs[1], "WAV", "PCM_24", 96_000),
        "chained vorbis": files["vorbis"] + with_checksums(files["vorbis"], serial=2),
        "chained vorbis and opus": files["vorbis"] + with_checksums(files["opus"], serial=2),
        "joined flac": flac + claiming_samples(flac, 0.5),
        "joined wav": wav + wav + claiming_bytes(wav, 0.5),
        "joined mp3": files["mp3"] + id3_tag(300) + without_xing(files["mp3, VBR"]),
        "mp3 behind a tag": id3_tag(3000) + claiming_frames(files["mp3, VBR"], 0.3),
        "aac behind zeros": bytes(1500) + files["aac"],
        "mp4 of fragments": remuxed(files["m4a"], "mp4", movflags="frag_keyframe+empty_moov", frag_duration="500000"),
        "mp2 in ts, half of it lost": remuxed(files["mp2"], "mpegts", keep_every=2),
        "flv with a subtitle": with_subtitle(files["aac in flv"]),
        "wavpack, 12 channels": wavpack(song(3, channels=12)),
    }


def with_checksums(data: bytes, serial: int | None = None) -> bytes:
    """An Ogg file whose pages have right checksums, and this serial number."""
    data = bytearray(data)
    for match in re.finditer(rb"OggS\x00", bytes(data)):
        at = match.start()
        n_segments = data[at + 26] if at + 26 < len(data) else 0
        end = at + 27 + n_segments + sum(data[at + 27 : at + 27 + n_segments])
        if end <= len(data):
            if serial is not None:
                data[at + 14 : at + 18] = serial.to_bytes(4, "little")
            data[at + 22 : at + 26] = bytes(4)
            crc = zlib.crc32(data[at:end].translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
            data[at + 22 : at + 26] = crc.to_bytes(4).translate(_REVERSED)
    return bytes(data)


def remuxed(data: bytes, container: str, keep_every: int = 1, **options: str) -> bytes:
    """The packets of a file, of each `keep_every` the first, in another container."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container, options=options) as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.dts is not None and number % keep_every == 0:
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def with_subtitle(flv: bytes) -> bytes:
    """A Flash film, with a subtitle in front of its sound."""
    fields = b"".join(_amf(name) + b"\2" + _amf(value) for name, value in ((b"type", b"Text"), (b"text", b"hello")))
    body = b"\2" + _amf(b"onTextData") + b"\x08" + struct.pack(">I", 2) + fields + b"\0\0\x09"
    tag = b"\x12" + len(body).to_bytes(3) + bytes(7) + body
    return flv[:13] + tag + struct.pack(">I", len(tag)) + flv[13:]


def wavpack(samples: np.ndarray) -> bytes:
    """A WavPack file of any number of channels."""
    file, layout = io.BytesIO(), f"{samples.shape[1]}C"
    with av.open(file, "w", format="wv") as out:
        stream = out.add_stream("wavpack", rate=RATE_HZ, layout=layout, format="s16p")
        resampler = av.AudioResampler(format="s16p", layout=layout, rate=RATE_HZ)
        for start in range(0, len(samples), 4096):
            part = (samples[start : start + 4096] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts = RATE_HZ, start
            for ready in resampler.resample(frame):
                out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
    return file.getvalue()


def _amf(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def settled(data: bytes) -> bytes:
    """A file without what its encoder drew at random."""
    if data.startswith(b"OggS"):
        return with_checksums(data, serial=1)
    if not data.startswith((b"\x1a\x45\xdf\xa3", b"RIFF")):
        return data
    head, tail = data[:1000], data[-1000:]
    return (
        _DRAWN.sub(lambda match: b"\1" * len(match[0]), head)
        + data[1000:-1000]
        + _DRAWN.sub(lambda match: b"\1" * len(match[0]), tail)
    )
