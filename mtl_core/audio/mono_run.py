"""Mono run: frames of a decoder that follow each other without a gap, at one rate, mixed to mono as they come.

Legend: N samples, C channels.
"""

import numpy as np
from av.audio.frame import AudioFrame

_BLOCK_SAMPLES = 1 << 18  # all channels together, that are mixed at once: 1 MiB of float32
_SAMPLE_TYPES: dict[str, tuple[np.dtype, float]] = {  # ffmpeg's name less the p of planar -> type, scale to [-1, 1]
    "u8": (np.dtype(np.uint8), 2**-7),
    "s16": (np.dtype(np.int16), 2**-15),
    "s32": (np.dtype(np.int32), 2**-31),
    "s64": (np.dtype(np.int64), 2**-63),
    "flt": (np.dtype(np.float32), 1.0),
    "dbl": (np.dtype(np.float64), 1.0),
}


class MonoRun:
    """A run that begins with `frame`, which is to be added.

    Args:
        start: where it begins, in frames of the recording.
        channel: the channel that stands for all of them; None: their mean.
    """

    def __init__(self, frame: AudioFrame, start: int, channel: int | None) -> None:
        self.rate_hz, self.n_channels = frame.sample_rate, frame.layout.nb_channels
        self.start = start
        self.count = 0  # samples, at the run's rate
        self.skipped = 0  # the first of these, which are not kept
        self.frame_sizes: list[int] = []  # samples of each frame
        self.powers = np.zeros(1 + self.n_channels)  # sums of squares: of the mono samples, then of each channel
        self._channel = channel
        self._dtype, scale = _SAMPLE_TYPES[frame.format.name.removesuffix("p")]
        self._scale = np.float32(scale)
        self._is_planar = frame.format.is_planar
        self._block = np.empty((self.n_channels, max(8192, _BLOCK_SAMPLES // self.n_channels)), np.float32)
        self._filled = 0
        self._blocks: list[np.ndarray] = []

    def continues_with(self, frame: AudioFrame) -> bool:
        """Whether a frame has the run's rate and channels."""
        return frame.sample_rate == self.rate_hz and frame.layout.nb_channels == self.n_channels

    def skip(self, frame: AudioFrame) -> None:
        """Count the samples of a frame without keeping them. No frame may have been added."""
        self.count += frame.samples
        self.skipped += frame.samples
        self.frame_sizes.append(frame.samples)

    def add(self, frame: AudioFrame) -> None:
        """Append the samples of a frame."""
        n = frame.samples
        if self._filled + n > self._block.shape[1]:
            self._mix()
            if n > self._block.shape[1]:
                self._block = np.empty((self.n_channels, n), np.float32)
        part = self._block[:, self._filled : self._filled + n]
        if self._is_planar:
            for channel, plane in enumerate(frame.planes):
                part[channel] = np.frombuffer(memoryview(plane), self._dtype, n)
        else:
            part[:] = np.frombuffer(memoryview(frame.planes[0]), self._dtype, n * self.n_channels).reshape(n, -1).T
        self._filled += n
        self.count += n
        self.frame_sizes.append(n)

    def mono(self) -> np.ndarray:
        """The samples (N,) float32 that were added, at the run's rate; [-1, 1] if they were integers."""
        self._mix()
        return np.concatenate(self._blocks) if self._blocks else np.empty(0, np.float32)

    def _mix(self) -> None:
        if not self._filled:
            return
        block = self._block[:, : self._filled]
        if self._dtype == np.uint8:
            block -= 128
        block *= self._scale
        if self._channel is None:
            mono = np.full(self.n_channels, 1 / self.n_channels, np.float32) @ block
        else:
            mono = block[min(self._channel, self.n_channels - 1)].copy()
        self.powers += [np.dot(samples, samples) for samples in (mono, *block)]
        self._blocks.append(mono)
        self._filled = 0
