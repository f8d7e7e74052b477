"""Mono run: frames of a decoder that follow each other without a gap, at one rate, mixed to mono as they come.

Legend: N samples, C channels.
"""

import numpy as np
from av.audio.frame import AudioFrame

_BLOCK_SAMPLES = 1 << 15  # all channels together, that are mixed at once: 128 KiB, which stays in a core's cache
_LEAST_BLOCK = 4_608  # of each channel: the largest frames of most codecs
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

    Python takes as long for a frame of mp3 (1,152 samples) as its decoder, unless it does little.

    Args:
        start: where it begins, in frames of the recording.
        expected: number of samples that memory is reserved for at first.
        channel: the channel that stands for all of them; None: their mean.
        measure: whether to measure `powers`.
    """

    def __init__(self, frame: AudioFrame, start: int, expected: int, *, channel: int | None, measure: bool) -> None:
        self.rate_hz, self.n_channels = frame.sample_rate, frame.layout.nb_channels
        self.start = start
        self.count = 0  # samples, at the run's rate
        self.skipped = 0  # the first of these, which are not kept
        self.frame_sizes: list[int] = []  # samples of each frame
        self.powers = np.zeros(1 + self.n_channels)  # sums of squares: of the mono samples, then of each channel
        self._channel, self._measure = channel, measure
        self._dtype, scale = _SAMPLE_TYPES[frame.format.name.removesuffix("p")]
        self._is_planar = frame.format.is_planar
        self._n_planes = self.n_channels if self._is_planar else 1
        self._weights = np.full(self.n_channels, scale / self.n_channels, np.float32)
        if channel is not None:
            self._weights = scale * (np.arange(self.n_channels) == min(channel, self.n_channels - 1)).astype(np.float32)
        self._scale = scale
        self._mono, self._n_mono = np.empty(expected, np.float32), 0
        self._block, self._filled = self._new_block(max(_LEAST_BLOCK, _BLOCK_SAMPLES // self.n_channels)), 0

    def skip(self, frame: AudioFrame) -> bool:
        """Count the samples of a frame without keeping them. No frame may have been added. Returns what `add` does."""
        if frame.sample_rate != self.rate_hz:
            return False
        self.count += frame.samples
        self.skipped += frame.samples
        self.frame_sizes.append(frame.samples)
        return True

    def add(self, frame: AudioFrame) -> bool:
        """Append the samples of a frame. Returns False where its rate or its channels are others: it is not added."""
        n, planes = frame.samples, frame.planes
        if self.n_channels > 8:  # PyAV takes what lies behind the pointers of more than 8 planes for planes, too
            planes = planes[: frame.layout.nb_channels]
        if frame.sample_rate != self.rate_hz or len(planes) != self._n_planes:
            return False
        end = self._filled + n
        if end > self._block.shape[1]:
            self._mix()
            end = n
            if n > self._block.shape[1]:
                self._block = self._new_block(n)
        if self._is_planar:
            for channel, plane in enumerate(planes):
                self._block[channel, self._filled : end] = np.frombuffer(plane, self._dtype, n)  # type: ignore[call-overload]
        else:
            if frame.layout.nb_channels != self.n_channels:
                return False
            samples = np.frombuffer(planes[0], self._dtype, n * self.n_channels)  # type: ignore[call-overload]
            self._block[:, self._filled : end] = samples.reshape(n, self.n_channels).T
        self._filled = end
        self.count += n
        self.frame_sizes.append(n)
        return True

    def mono(self) -> np.ndarray:
        """The samples (N,) float32 that were added, at the run's rate; [-1, 1] if they were integers. It ends the run.

        Memory that is not needed is freed: damage can make thousands of runs.
        """
        self._mix()
        self._block = self._new_block(0)
        if self._n_mono < len(self._mono) // 2:
            self._mono = self._mono[: self._n_mono].copy()
        return self._mono[: self._n_mono]

    def _new_block(self, size: int) -> np.ndarray:
        return np.empty((self.n_channels, size), np.float32)

    def _mix(self) -> None:
        end = self._n_mono + self._filled
        if end > len(self._mono):
            self._mono = np.concatenate((self._mono[: self._n_mono], np.empty(max(end, 1 << 16), np.float32)))
        block, mono = self._block[:, : self._filled], self._mono[self._n_mono : end]
        if self._dtype == np.uint8:
            block -= 128
        np.dot(self._weights, block, out=mono)
        if self._measure:
            self.powers[0] += np.dot(mono, mono)
            self.powers[1:] += [self._scale**2 * np.dot(samples, samples) for samples in block]
        self._n_mono, self._filled = end, 0
