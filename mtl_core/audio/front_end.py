"""Front end: a recording -> the mel spectra of its segments. Training and tagging share this one path.

`FrontEnd` holds everything that decides what the network's input is. It travels with mels and with models, and its hash
tells whether two of them were made alike.

Legend: S segments, T frames (187), F mel bands (96), N samples, K bins of the FFT.
"""

from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO

import numpy as np

from mtl_core.audio.decoding.decode import (
    SAMPLE_RATE_HZ,
    Excerpt,
    Recording,
    Stretches,
    open_sound,
    read_stretches,
    resampled_length,
)
from mtl_core.audio.filter_bank import default_filter_bank, make_filter_bank, unpack
from mtl_core.audio.mel import MEL_SHAPE, MelConfig, log_mel
from mtl_core.audio.segments import (
    MAX_SEGMENTS_PER_EXCERPT,
    SEGMENT_SAMPLES,
    excerpt_frames,
    random_starts,
    segment_starts,
    slice_segments,
    spread_starts,
)
from mtl_core.canonical import canonical_json, canonical_sha256
from mtl_core.errors import TrackError

SAMPLINGS = ("spread", "paper")
DEFAULT_SEGMENTS = 32  # of the sampling `spread`
LOUDEST = 32.0  # of a sample at full scale 1. A float file beyond it, +30 dB, holds numbers of another scale


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """How a recording becomes the network's input.

    Args:
        mel: parameters of the mel spectrum; its frames and bands are those of `MEL_SHAPE`.
        sampling: which segments stand for a recording, see `segments`: "spread" or "paper".
        segments: of the sampling "spread", the number of segments of 3 s, 1 to 1,024; None with "paper".
        segments_per_excerpt: of the sampling "paper", the segments of 3 s that are kept of an excerpt of 60 s, 1 to 20;
            20 is back to back.
        filter_bank: (F, K) float32, the weights of the mel bands, stored beside the JSON and not part of it; None: the
            bank of the default mel spectrum. `define_front_end` makes another one.

    Raises:
        ValueError: a value is out of its range, or no filter bank is given for a mel spectrum other than the default.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    segments_per_excerpt: int = MAX_SEGMENTS_PER_EXCERPT
    sampling: str = field(default="paper", metadata={"since": "0.2"})
    segments: int | None = field(default=None, metadata={"since": "0.2"})
    # None as an argument, an array afterwards
    filter_bank: np.ndarray = field(default=None, compare=False, repr=False)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        segment_starts(SEGMENT_SAMPLES, self.segments_per_excerpt)  # checks the number
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {self.sampling!r}")
        if self.sampling == "spread":
            spread_starts(SEGMENT_SAMPLES, self.segments or 0)
        elif self.segments is not None:
            raise ValueError(f"segments is of the sampling spread, got {self.segments} with {self.sampling}")
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

    def stretches(self, n_frames: int, rate_hz: int, *, draws: int = 0, seed: int = 0, track_id: str = "") -> Stretches:
        """What is to be decoded of a recording of `n_frames` at `rate_hz`; other arguments as `log_mel_segments`."""
        if self.sampling == "paper":
            return Stretches(places=excerpt_frames(n_frames, rate_hz), are_excerpts=True)
        assert self.segments is not None
        n_samples = resampled_length(n_frames, rate_hz)
        starts = spread_starts(n_samples, self.segments)
        if draws:
            starts = random_starts(n_samples, len(starts), draws, seed, track_id)
        length = min(n_samples, SEGMENT_SAMPLES)
        return Stretches(places=[(int(start), length) for start in starts], are_excerpts=False)

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


def define_front_end(*, mel: MelConfig | None = None, **sampling: Any) -> FrontEnd:
    """A new front end, whose filter bank librosa makes now. Everyone else reads the bank from mels or an artifact.

    Args:
        mel: as of `FrontEnd`.
        sampling: its other arguments.

    Raises what `FrontEnd` and `make_filter_bank` raise.
    """
    mel = mel or MelConfig()
    return FrontEnd(mel=mel, filter_bank=make_filter_bank(mel), **sampling)


def sampling_parameters(sampling: str, segments: int | None, segments_per_excerpt: int | None) -> dict[str, Any]:
    """The arguments of `FrontEnd` for a user's choice, in which None is the default.

    Raises:
        ValueError: a number is given that belongs to the other sampling.
    """
    if sampling == "spread":
        if segments_per_excerpt is not None:
            raise ValueError(f"segments per excerpt are of the sampling paper, got {segments_per_excerpt} with spread")
        return {"sampling": sampling, "segments": DEFAULT_SEGMENTS if segments is None else segments}
    if segments is not None:
        raise ValueError(f"segments are of the sampling spread, got {segments} with {sampling}")
    k = MAX_SEGMENTS_PER_EXCERPT if segments_per_excerpt is None else segments_per_excerpt
    return {"sampling": sampling, "segments_per_excerpt": k}


def _json_fields(config: FrontEnd | MelConfig) -> dict[str, Any]:
    """The fields of a config, without newer ones that have their default value."""
    values = {item: getattr(config, item.name) for item in fields(config) if item.compare}
    return {item.name: value for item, value in values.items() if "since" not in item.metadata or value != item.default}


def _check_names(config: type, values: dict[str, Any]) -> None:
    allowed = {item.name: item.metadata for item in fields(config) if item.compare}
    required = {name for name, metadata in allowed.items() if "since" not in metadata}
    if not required <= values.keys() <= allowed.keys():
        raise ValueError(f"{config.__name__} has the names {sorted(allowed)}, got {sorted(values)}")


def read_recording(file: BinaryIO, front_end: FrontEnd) -> Recording:
    """Decode what the front end takes of a sound file, in this process: for files that are trusted, and for tests.

    Raises what `decode.open_sound` raises.
    """
    with closing(open_sound(file)) as sound:
        return read_stretches(sound, front_end.stretches(sound.n_frames, sound.rate_hz))


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of a track, in order: row i is `segment` i."""

    mel_STF: np.ndarray  # (S, T, F) float32, compressed mel power, >= 0 and finite
    start_s: np.ndarray  # (S,) float64, from the recording's start


def log_mel_segments(
    recording: Recording, front_end: FrontEnd, *, draws: int = 0, seed: int = 0, track_id: str = ""
) -> Segments:
    """The network's input for the stretches of a recording that `FrontEnd.stretches` names.

    Args:
        draws: 0 for the fixed grid; N > 0 for N random segments a slot, the draws of a slot adjacent.
        seed, track_id: the random starts depend on both.

    Raises:
        TrackError: features: `not_finite`, a sample is NaN or infinite; `out_of_range`, a sample is louder than
            `LOUDEST`.
    """
    segments, starts_s = [], []
    for index, excerpt in enumerate(recording.excerpts):
        _check_samples(excerpt)
        starts = np.zeros(1, np.int64)
        if front_end.sampling == "paper":
            starts = segment_starts(len(excerpt.samples), front_end.segments_per_excerpt)
            if draws:
                starts = random_starts(len(excerpt.samples), len(starts), draws, seed, track_id, index)
        segments.append(slice_segments(excerpt.samples, starts))
        starts_s.append(excerpt.start_s + starts / SAMPLE_RATE_HZ)
    if front_end.sampling == "spread":  # one segment each
        segments = [np.concatenate(segments)]
    mels = [log_mel(segments_SN, front_end.mel, front_end.filter_bank) for segments_SN in segments]
    return Segments(mel_STF=np.concatenate(mels), start_s=np.concatenate(starts_s))


def _check_samples(excerpt: Excerpt) -> None:
    loudest = max(float(excerpt.samples.max()), -float(excerpt.samples.min()))  # NaN if a sample is
    if not np.isfinite(loudest):
        raise TrackError("features", "not_finite", f"NaN or infinite samples in the excerpt at {excerpt.start_s:g} s")
    if loudest > LOUDEST:
        message = f"samples up to {loudest:g} at {excerpt.start_s:g} s: full scale is 1, allowed are up to {LOUDEST:g}"
        raise TrackError("features", "out_of_range", message)
