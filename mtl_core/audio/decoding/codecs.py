"""Codecs: what must be known of a codec to decode it from the middle exactly as in a whole decode.

The numbers are measured: with less, samples after a seek differed from those of a whole decode.
"""

from dataclasses import dataclass
from fractions import Fraction

#: Samples that are decoded before the first one asked for, and thrown away. A decoder of a lossy codec has a memory:
#: mp3 frames use bytes of earlier ones (11,333 samples at 22 kHz and 8 kbit/s), Opus predicts (13,500 samples).
_LOSSY_LEAD = 16_384
_WMA_LEAD = 6_144  # more: after a seek the decoder drops frames
_COARSE_LEAD = 4_096  # more, where the container rounds times to more than a sample
_OGG_FLAC_LEAD = 65_536  # more than a page: times are only right from the next page on

_LOSSLESS = {"flac", "alac", "wavpack", "tta", "ape", "truehd", "mlp", "mp4als", "shorten", "tak", "wmalossless"}
RAW_CONTAINERS = {"wav", "w64", "aiff", "au", "caf"}
_OF_BLOCKS = ("adpcm_", "gsm")  # codecs whose blocks all have one size


@dataclass(frozen=True, kw_only=True)
class SeekRules:
    """How samples are found again after a seek."""

    lead_frames: int  # that are decoded and thrown away before the first one asked for
    #: Whether the time of each block is exact. Else the position of a block is counted from the block that is earliest
    #: by its time: the times of Vorbis and Flac in Ogg are too late, Matroska and ASF round to milliseconds.
    exact_times: bool
    #: Whether a time is rounded, but blocks have one size, so that it can be put on the grid of blocks.
    on_grid: bool
    #: Whether the offset of a packet in the file gives its time exactly, because all packets have one size. Times of
    #: such WAV files come from a rounded byte rate.
    by_bytes: bool
    #: Whether times are of no use: everything before the first sample asked for is decoded.
    from_start: bool


def seek_rules(codec: str, container: str, time_base: Fraction, rate_hz: int) -> SeekRules:
    """The rules of a stream, by ffmpeg's names of its codec and its container."""
    is_pcm = codec.startswith("pcm_")
    is_coarse = time_base * rate_hz > 1
    is_late = container == "ogg" and codec in ("vorbis", "flac")
    has_pcm_times = container in RAW_CONTAINERS and not is_pcm
    by_bytes = has_pcm_times and codec.startswith(_OF_BLOCKS)
    lead = 0 if is_pcm or codec in _LOSSLESS else _LOSSY_LEAD
    lead += _WMA_LEAD if codec.startswith("wma") else 0
    lead += _COARSE_LEAD if is_coarse else 0
    lead += _OGG_FLAC_LEAD if is_late and codec == "flac" else 0
    return SeekRules(
        lead_frames=lead,
        exact_times=not (is_late or is_coarse),
        on_grid=is_coarse and codec != "vorbis",
        by_bytes=by_bytes,
        # times are computed from a mean bit rate
        from_start=container in ("ac3", "eac3", "dts") or (has_pcm_times and not by_bytes and container == "wav"),
    )
