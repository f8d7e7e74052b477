"""Features: a recording -> the mel spectra of its segments. The one path, for training and for tagging.

`FrontEnd` is everything that decides what the network hears; it travels with mels and with models, and its hash tells
whether two were made alike. Legend: S segments, T frames (187), F mel bands (96), N samples.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mtl_core.audio.decode import SAMPLE_RATE_HZ, Recording
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.audio.segments import (
    MAX_SEGMENTS_PER_EXCERPT,
    SEGMENT_SAMPLES,
    drawn_starts,
    segment_starts,
    slice_segments,
)
from mtl_core.canonical import canonical_sha256
from mtl_core.errors import TrackError


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """How a recording becomes the network's input.

    Args:
        mel: the mel spectrum.
        segments_per_excerpt: segments of 3 s kept of an excerpt of 60 s, 1 to 20; 20 is back to back.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    segments_per_excerpt: int = MAX_SEGMENTS_PER_EXCERPT

    def __post_init__(self) -> None:
        segment_starts(SEGMENT_SAMPLES, self.segments_per_excerpt)
        if self.mel.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"sample_rate_hz must be {SAMPLE_RATE_HZ}, got {self.mel.sample_rate_hz}")
        if self.mel.frames > 1 + SEGMENT_SAMPLES // self.mel.hop_samples:
            raise ValueError(f"frames must be <= 1 + {SEGMENT_SAMPLES} // hop_samples, got {self.mel.frames}")

    def to_dict(self) -> dict[str, Any]:
        """JSON's types only; `from_dict` gives the same front end back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FrontEnd":
        """Raises ValueError where names are missing or unknown, or a value is not allowed."""
        mel = MelConfig()
        if values.keys() != cls().to_dict().keys() or values["mel"].keys() != asdict(mel).keys():
            raise ValueError(f"a front end has the names of {cls().to_dict()}, got {values}")
        return cls(mel=MelConfig(**values["mel"]), segments_per_excerpt=values["segments_per_excerpt"])

    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `to_dict`: equal where the front ends are."""
        return canonical_sha256(self.to_dict())


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of a track, in order: row i is `segment` i.

    Args:
        mel_STF: (S, T, F) float32, compressed mel power, >= 0 and finite.
        start_s: (S,) float64, seconds from the recording's start.
    """

    mel_STF: np.ndarray
    start_s: np.ndarray


def log_mel_segments(
    recording: Recording, front_end: FrontEnd, *, draws: int = 0, seed: int = 0, track_id: str = ""
) -> Segments:
    """The network's input for a recording.

    Args:
        recording: of `audio.read_recording`.
        front_end: the parameters.
        draws: 0 for the fixed grid; N > 0 for N random segments a slot, the draws of a slot adjacent.
        seed, track_id: what the random starts depend on, beside the excerpt's position; unused with 0 draws.

    Raises:
        TrackError: features, `not_finite`: a sample is NaN or infinite, or so large that its power is.
    """
    mels, starts_s = [], []
    k = front_end.segments_per_excerpt
    for index, excerpt in enumerate(recording.excerpts):
        n_samples = len(excerpt.samples)
        starts = drawn_starts(n_samples, k, draws, seed, track_id, index) if draws else segment_starts(n_samples, k)
        if not np.isfinite(excerpt.samples).all():
            raise TrackError("features", "not_finite", f"NaN or infinite samples in the excerpt at {excerpt.start_s} s")
        with np.errstate(over="ignore", invalid="ignore"):
            mels.append(log_mel(slice_segments(excerpt.samples, starts), front_end.mel))
        if not np.isfinite(mels[-1]).all():
            raise TrackError(
                "features", "not_finite", f"samples up to {np.abs(excerpt.samples).max():g}: no finite power"
            )
        starts_s.append(excerpt.start_s + starts / SAMPLE_RATE_HZ)
    return Segments(mel_STF=np.concatenate(mels), start_s=np.concatenate(starts_s))
