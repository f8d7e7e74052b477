"""The batches of a worker, on its device: its share of an epoch, and of the validation part.

A thread makes the next batch while the one before is trained on, and the first batch of the next epoch (for which a
buffer must be filled) while this epoch is validated.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ray.train
import ray.train.torch
import torch
from torch import Tensor

from mtl_core.dataset.loader import Batch, SplitSegments, n_batches
from mtl_core.model.recipes import Recipe

SHUFFLE_SEGMENTS = 4096  # that a worker holds to draw its batches from; 36 KB each
#: Segments at once. On a CPU the values between two layers should stay in its caches: 16 take 4.6 ms a segment, 32 take
#: 6.8 (`paper`).
VALIDATION_BATCH = {"cpu": 16, "cuda": 256}
MAX_CACHED_SEGMENTS = 20_000  # of validation, in the workers' memory: 0.7 GB; more are read again in each epoch


class TrainInput:
    """The batches of a worker. The arguments are the same on every worker; `seed` is that of the shuffling."""

    def __init__(self, training: SplitSegments, validation: SplitSegments, recipe: Recipe, seed: int) -> None:
        context = ray.train.get_context()
        self._worker = {"rank": context.get_world_rank(), "world_size": context.get_world_size()}
        self._training, self._validation, self._seed = training, validation, seed
        self._device = ray.train.torch.get_device()
        self._validation_batches: list[Batch] | None = None
        self._size = recipe.global_batch // context.get_world_size()
        self._per_track = recipe.segments_per_track
        share = training.epoch_segments(self._per_track) // context.get_world_size()
        self.updates = n_batches(share, self._size)  # of an epoch
        self._started: dict[int, Iterator[dict[str, Tensor]]] = {}

    def begin(self, epoch: int) -> None:
        """Start to make the first batch of an epoch."""
        batches = self._training.shuffled_batches(
            self._size,
            buffer_segments=SHUFFLE_SEGMENTS,
            seed=self._seed,
            epoch=epoch,
            per_track=self._per_track,
            **self._worker,
        )
        self._started[epoch] = self._prefetch(batches)

    def epoch(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """This worker's share of an epoch."""
        if epoch not in self._started:
            self.begin(epoch)
        return self._started.pop(epoch)

    def validation(self) -> Iterator[dict[str, Tensor]]:
        """This worker's share of the validation part. The shares may differ by a segment."""
        if self._validation.segments > MAX_CACHED_SEGMENTS:
            return self.in_order(self._validation)
        self._validation_batches = self._validation_batches or list(self._read(self._validation))
        return self._prefetch(iter(self._validation_batches))

    def in_order(self, segments: SplitSegments) -> Iterator[dict[str, Tensor]]:
        """This worker's share of any segments. The shares may differ by a segment."""
        return self._prefetch(self._read(segments))

    def _read(self, segments: SplitSegments) -> Iterator[Batch]:
        return segments.ordered_batches(VALIDATION_BATCH[self._device.type], **self._worker)

    def _prefetch(self, batches: Iterator[Batch]) -> Iterator[dict[str, Tensor]]:
        """The batches on the device; the first is made at once, each other one while the one before is used."""
        pool = ThreadPoolExecutor(1)
        first = pool.submit(next, batches, None)

        def on_device() -> Iterator[dict[str, Tensor]]:
            with pool:
                pending = first
                while (batch := pending.result()) is not None:
                    pending = pool.submit(next, batches, None)
                    yield {name: torch.from_numpy(array).to(self._device) for name, array in batch.items()}

        return on_device()
