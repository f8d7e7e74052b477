"""Front end: a recording -> the mel spectra of its segments. Training and tagging share this one path.

`FrontEnd` holds everything that decides what the network's input is. It travels with mels and with models, and its hash
tells whether two of them were made alike.

Legend: S segments, T frames (187), F mel bands (96), N samples, K bins of the FFT.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mtl_core.audio.decode import SAMPLE_RATE_HZ, Recording
from mtl_core.audio.filter_bank import default_filter_bank, make_filter_bank, unpack
from mtl_core.audio.mel import MEL_SHAPE, MelConfig, log_mel
from mtl_core.audio.segments import (
    MAX_SEGMENTS_PER_EXCERPT,
    SEGMENT_SAMPLES,
    random_starts,
    segment_starts,
    slice_segments,
)
from mtl_core.canonical import canonical_json, canonical_sha256
from mtl_core.errors import TrackError


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """How a recording becomes the network's input.

    Args:
        mel: parameters of the mel spectrum; its frames and bands are those of `MEL_SHAPE`.
        segments_per_excerpt: segments of 3 s that are kept of an excerpt of 60 s, 1 to 20; 20 is back to back.
        filter_bank: (F, K) float32, the weights of the mel bands, stored beside the JSON and not part of it; None: the
            bank of the default mel spectrum. `define_front_end` makes another one.

    Raises:
        ValueError: a value is out of its range, or no filter bank is given for a mel spectrum other than the default.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    segments_per_excerpt: int = MAX_SEGMENTS_PER_EXCERPT
    # None as an argument, an array afterwards
    filter_bank: np.ndarray = field(default=None, compare=False, repr=False)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        segment_starts(SEGMENT_SAMPLES, self.segments_per_excerpt)
        if self.mel.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"sample_rate_hz must be {SAMPLE_RATE_HZ}, got {self.mel.sample_rate_hz}")
        if (self.mel.frames, self.mel.bands) != MEL_SHAPE:
            raise ValueError(f"frames and bands must be {MEL_SHAPE}, got {(self.mel.frames, self.mel.bands)}")
        if self.mel.frames > 1 + SEGMENT_SAMPLES // self.mel.hop_samples:
            raise ValueError(f"hop_samples must leave {self.mel.frames} frames in 3 s, got {self.mel.hop_samples}")
        if self.filter_bank is None:
            object.__setattr__(self, "filter_bank", default_filter_bank(self.mel))
        bank, shape = self.filter_bank, (self.mel.bands, self.mel.n_fft // 2 + 1)
        if bank.shape != shape or bank.dtype != np.float32:
            raise ValueError(
                f"the filter bank must be float32 of shape {shape}, got {bank.dtype} of shape {bank.shape}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The parameters as JSON values.

        Hashes and `model_id`s of users' data depend on the result, so it must not change: the fields of version 0.1 are
        always in it. A field that is added later carries `metadata={"since": "0.2"}` and is left out while it has its
        default value, which must mean what version 0.1 did.
        """
        return _json_fields(self) | {"mel": _json_fields(self.mel)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], packed_filter_bank: bytes | None = None) -> "FrontEnd":
        """The front end that `to_dict` was called on.

        Args:
            values: of `to_dict`; fields that are newer than version 0.1 may be missing.
            packed_filter_bank: of `filter_bank.pack`; None in data of version 0.1.

        Raises:
            ValueError: a name is missing or unknown, a value is not allowed, or the filter bank cannot be read.
        """
        _check_names(cls, values)
        _check_names(MelConfig, values["mel"])
        filter_bank = None if packed_filter_bank is None else unpack(packed_filter_bank)
        return cls(**values | {"mel": MelConfig(**values["mel"]), "filter_bank": filter_bank})

    def to_json(self) -> str:
        """`to_dict` as canonical JSON."""
        return canonical_json(self.to_dict())

    def hash(self) -> str:
        """SHA-256 (hexadecimal) of `to_json`: two front ends with the same hash make the same mels."""
        return canonical_sha256(self.to_dict())


def define_front_end(*, mel: MelConfig | None = None, segments_per_excerpt: int = MAX_SEGMENTS_PER_EXCERPT) -> FrontEnd:
    """A new front end, whose filter bank librosa makes now. Everyone else reads the bank from mels or an artifact.

    Raises what `FrontEnd` and `make_filter_bank` raise.
    """
    mel = mel or MelConfig()
    return FrontEnd(mel=mel, segments_per_excerpt=segments_per_excerpt, filter_bank=make_filter_bank(mel))


def _json_fields(config: FrontEnd | MelConfig) -> dict[str, Any]:
    """The fields of a config, without newer ones that have their default value."""
    values = {item: getattr(config, item.name) for item in fields(config) if item.compare}
    return {item.name: value for item, value in values.items() if "since" not in item.metadata or value != item.default}


def _check_names(config: type, values: dict[str, Any]) -> None:
    allowed = {item.name: item.metadata for item in fields(config) if item.compare}
    required = {name for name, metadata in allowed.items() if "since" not in metadata}
    if not required <= values.keys() <= allowed.keys():
        raise ValueError(f"{config.__name__} has the names {sorted(allowed)}, got {sorted(values)}")


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of a track, in order: row i is `segment` i."""

    mel_STF: np.ndarray  # (S, T, F) float32, compressed mel power, >= 0 and finite
    start_s: np.ndarray  # (S,) float64, from the recording's start


def log_mel_segments(
    recording: Recording, front_end: FrontEnd, *, draws: int = 0, seed: int = 0, track_id: str = ""
) -> Segments:
    """The network's input for a recording.

    Args:
        draws: 0 for the fixed grid; N > 0 for N random segments a slot, the draws of a slot adjacent.
        seed, track_id: the random starts depend on both.

    Raises:
        TrackError: features, `not_finite`: a sample is NaN or infinite, or so large that its power is.
    """
    mels, starts_s = [], []
    k = front_end.segments_per_excerpt
    for index, excerpt in enumerate(recording.excerpts):
        n_samples = len(excerpt.samples)
        starts = random_starts(n_samples, k, draws, seed, track_id, index) if draws else segment_starts(n_samples, k)
        if not np.isfinite(excerpt.samples).all():
            raise TrackError("features", "not_finite", f"NaN or infinite samples in the excerpt at {excerpt.start_s} s")
        with np.errstate(over="ignore", invalid="ignore"):
            mels.append(log_mel(slice_segments(excerpt.samples, starts), front_end.mel, front_end.filter_bank))
        if not np.isfinite(mels[-1]).all():
            loudest = np.abs(excerpt.samples).max()
            raise TrackError("features", "not_finite", f"samples up to {loudest:g}: their power is not finite")
        starts_s.append(excerpt.start_s + starts / SAMPLE_RATE_HZ)
    return Segments(mel_STF=np.concatenate(mels), start_s=np.concatenate(starts_s))
