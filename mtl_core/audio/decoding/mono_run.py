"""Mono run: blocks of a decoder that follow each other without a gap, at one rate, mixed to mono as they come.

A block is what PyAV calls a frame: some samples of each channel.

Legend: N samples, C channels.
"""

import numpy as np
from av.audio.frame import AudioFrame

_BUFFER_BYTES = 1 << 17  # of all channels, that are mixed at once: they stay in a core's cache
_SAMPLE_TYPES: dict[str, tuple[np.dtype, int, float]] = {  # ffmpeg's name less the p of planar -> type, zero, scale
    "u8": (np.dtype(np.uint8), 128, 2**-7),
    "s16": (np.dtype(np.int16), 0, 2**-15),
    "s32": (np.dtype(np.int32), 0, 2**-31),
    "s64": (np.dtype(np.int64), 0, 2**-63),
    "flt": (np.dtype(np.float32), 0, 1.0),
    "dbl": (np.dtype(np.float64), 0, 1.0),
}


class MonoRun:
    """A run that begins with `block`, which is to be added.

    A block of mp3 holds 1,152 samples. What Python does for each block must take little time beside decoding it.

    Args:
        start: where it begins, in frames of the recording.
        expected: number of samples that memory is reserved for at first.
        channel: the channel that stands for all of them; None: their mean.
        measure: whether to measure `powers`.
    """

    def __init__(self, block: AudioFrame, start: int, expected: int, *, channel: int | None, measure: bool) -> None:
        self.rate_hz, self.n_channels = block.sample_rate, block.layout.nb_channels
        self.start, self.is_at_start = start, start == 0
        self.count = 0  # samples, at the run's rate
        self.skipped = 0  # the first of these, which are not kept
        self.block_sizes: list[int] = []  # samples of each block
        self.powers = np.zeros(1 + self.n_channels)  # sums of squares: of the mono samples, then of each channel
        self.measured = 0  # samples that the powers are of
        self._channel = None if channel is None else min(channel, self.n_channels - 1)
        self._measure = measure
        self._format = block.format.name
        self._dtype, self._zero, self._scale = _SAMPLE_TYPES[self._format.removesuffix("p")]
        self._is_planar = block.format.is_planar
        self._n_planes = self.n_channels if self._is_planar else 1
        self._mono, self._n_mono = np.empty(expected, np.float32), 0
        self._frame_bytes = self._dtype.itemsize * (1 if self._is_planar else self.n_channels)  # a plane's, of a sample
        self._new_buffer(_BUFFER_BYTES // (self._frame_bytes * self._n_planes))

    def skip(self, block: AudioFrame) -> bool:
        """Count the samples of a block without keeping them. No block may have been added. Returns what `add` does."""
        if block.sample_rate != self.rate_hz:
            return False
        self.count += block.samples
        self.skipped += block.samples
        self.block_sizes.append(block.samples)
        return True

    def add(self, block: AudioFrame) -> bool:
        """Append the samples of a block. Returns False where its rate, type or channels are others: not added."""
        n, planes = block.samples, block.planes
        if self.n_channels > 8:  # PyAV takes what lies behind the pointers of more than 8 planes for planes, too
            planes = planes[: block.layout.nb_channels]
        if block.sample_rate != self.rate_hz or len(planes) != self._n_planes or block.format.name != self._format:
            return False
        if not self._is_planar and block.layout.nb_channels != self.n_channels:
            return False
        if self._filled + n > self._size:
            self._mix()
            if n > self._size:
                self._new_buffer(n)
        start, end = self._filled * self._frame_bytes, (self._filled + n) * self._frame_bytes
        for row, plane in zip(
            self._rows, planes, strict=True
        ):  # copied as bytes: that takes the least of Python's time
            row[start:end] = memoryview(plane)[: end - start]
        self._filled += n
        self.count += n
        self.block_sizes.append(n)
        return True

    def mono(self) -> np.ndarray:
        """The samples (N,) float32 that were added, at the run's rate; [-1, 1] if they were integers. It ends the run.

        Memory that is not needed is freed: damage can make thousands of runs.
        """
        self._mix()
        mono = self._mono[: self._n_mono]
        if self._n_mono <= len(self._mono) // 2:
            mono = mono.copy()
        del self._mono, self._buffer, self._rows
        return mono

    def _new_buffer(self, size: int) -> None:
        """Memory for `size` samples of each channel, in the file's own type."""
        self._buffer = np.empty((self._n_planes, size * self._frame_bytes // self._dtype.itemsize), self._dtype)
        self._rows = [memoryview(row).cast("B") for row in self._buffer]
        self._size, self._filled = size, 0

    def _mix(self) -> None:
        n, filled = self._n_mono, self._filled
        if n + filled > len(self._mono):
            self._mono = np.concatenate((self._mono[:n], np.empty(n + filled, np.float32)))
        mono = self._mono[n : n + filled]
        channels = (
            self._buffer[:, :filled] if self._is_planar else self._buffer[0].reshape(-1, self.n_channels)[:filled].T
        )
        if self._dtype != np.float32:
            channels = channels.astype(np.float32)
            channels -= self._zero
        if self._channel is None:
            np.add(channels[0], channels[-1], out=mono) if self.n_channels == 2 else channels.sum(0, out=mono)
            mono *= np.float32(self._scale / self.n_channels)
        else:
            np.multiply(channels[self._channel], np.float32(self._scale), out=mono)
        if self._measure:
            self.powers += [np.dot(mono, mono), *(self._scale**2 * np.dot(samples, samples) for samples in channels)]
            self.measured += filled
        self._n_mono, self._filled = n + filled, 0
