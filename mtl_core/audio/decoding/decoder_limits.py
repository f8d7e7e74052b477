"""Decoder limits: what a file may be, and what decoding it may cost."""

from dataclasses import dataclass, field

from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits


@dataclass(frozen=True, kw_only=True)
class DecoderLimits:
    """What a file may be, and what decoding it may cost. A file beyond them is one failed track.

    Raises:
        ValueError: a limit is out of its range.
    """

    time_limit_s: float = 60.0
    """Wall-clock seconds in the child, above 0 and at most 86,400. The time in which the parent reads is not counted,
    but it is an hour at most."""
    memory_limit_bytes: int = 2 << 30
    """Of the child's address space, 512 MiB to 1 PiB; Python, numpy and ffmpeg take 250 MiB."""
    growth_bytes: int = 128 << 20
    """Of that, what a child may take beyond what it takes when it has started, without a turn, 1 MiB or more."""
    max_bytes: int = 16 << 30
    """Of a file."""
    sound: SoundLimits = field(default_factory=SoundLimits)
    """Duration, channels and rate of a recording."""

    def __post_init__(self) -> None:
        if not 0 < self.time_limit_s <= 86_400:
            raise ValueError(f"the time limit of decoding must be above 0 and at most 86400 s, got {self.time_limit_s}")
        if not 1 << 29 <= self.memory_limit_bytes <= 1 << 50:
            memory_mib = self.memory_limit_bytes / 2**20
            raise ValueError(f"the memory limit of decoding must be 512 to {1 << 30} MiB, got {memory_mib:g}")
        if self.growth_bytes < 1 << 20:
            raise ValueError(f"a decoder's ordinary growth must be 1 MiB or more, got {self.growth_bytes} bytes")
        if self.max_bytes < 1:
            raise ValueError(f"the largest file must be of 1 byte or more, got {self.max_bytes}")
