"""Read limits: what a track may be, and what reading it may cost. The same flags in every job that reads audio."""

from dataclasses import dataclass, fields

from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """A track beyond these limits fails with a name; the others are not affected.

    Raises:
        ValueError: a limit is out of its range.
    """

    decode_limit_s: float = DecoderLimits.time_limit_s
    """Seconds that decoding one track may take."""
    decode_memory_mib: int = DecoderLimits.memory_limit_bytes // 2**20
    """MiB of memory that decoding one track may take, 512 or more."""
    max_file_mib: int = DecoderLimits.max_bytes // 2**20
    """Largest file in MiB, 1 or more."""
    max_duration_s: float = SoundLimits.max_duration_s
    """Longest recording in seconds."""
    max_channels: int = SoundLimits.max_channels
    """Most channels of a recording, 1 or more."""
    max_rate_hz: int = SoundLimits.max_rate_hz
    """Highest sample rate of a recording in Hz, 1000 or more."""
    allow_uri_prefix: tuple[str, ...] | None = None
    """Folders or s3:// prefixes, one or more, outside which no track is read. Default: all that the manifest names."""

    def __post_init__(self) -> None:
        self.decoder_limits()  # checks its numbers
        if self.allow_uri_prefix is not None and not self.allowed():
            raise ValueError("allow-uri-prefix names no folder: give one or more, or leave it out")

    def read_limits(self) -> "ReadLimits":
        """These limits alone, of a job's options."""
        return ReadLimits(**{item.name: getattr(self, item.name) for item in fields(ReadLimits)})

    def decoder_limits(self) -> DecoderLimits:
        """The limits of the decoder process."""
        return DecoderLimits(
            time_limit_s=self.decode_limit_s,
            memory_limit_bytes=self.decode_memory_mib * 2**20,
            max_bytes=self.max_file_mib * 2**20,
            sound=SoundLimits(
                max_duration_s=self.max_duration_s, max_channels=self.max_channels, max_rate_hz=self.max_rate_hz
            ),
        )

    def allowed(self) -> tuple[Location, ...]:
        """The places that tracks may be in; empty: anywhere."""
        return tuple(Location(prefix) for prefix in self.allow_uri_prefix or ())
