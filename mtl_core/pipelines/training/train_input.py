"""Training data: what a worker is fed with, on its device: its share of an epoch, and of the validation part.

A thread makes the next batch while the one before it is trained on, and the first batch of the next epoch (a buffer
must be filled for it) while this epoch is validated.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ray.train
import ray.train.torch
import torch
from torch import Tensor

from mtl_core.dataset.loader import Batch, SplitSegments
from mtl_core.model.recipes import Recipe

#: On a CPU the values between two layers should stay in its caches: 16 take 4.6 ms a segment, 32 take 6.8.
VALIDATION_BATCH = {"cpu": 16, "cuda": 256}
HELD_SEGMENTS = 20_000  # of validation, in the workers' memory: 0.7 GB; more are read again in each epoch


class TrainInput:
    """A worker's batches.

    Args:
        training, validation: the parts, the same on every worker.
        recipe: says how large the batches are, and how they are shuffled.
        seed: of the shuffling.
    """

    def __init__(self, training: SplitSegments, validation: SplitSegments, recipe: Recipe, seed: int) -> None:
        context = ray.train.get_context()
        self._worker = {"rank": context.get_world_rank(), "world_size": context.get_world_size()}
        self._training, self._validation, self._recipe, self._seed = training, validation, recipe, seed
        self._device = ray.train.torch.get_device()
        self._held: list[Batch] | None = None
        self._size = recipe.global_batch // context.get_world_size()
        self.updates = -(-(training.segments // context.get_world_size()) // self._size)  # of an epoch
        self._begun: dict[int, Iterator[dict[str, Tensor]]] = {}

    def begin(self, epoch: int) -> None:
        """Make its first batch from now on."""
        batches = self._training.shuffled_batches(
            self._size, buffer_segments=self._recipe.shuffle_segments, seed=self._seed, epoch=epoch, **self._worker
        )
        self._begun[epoch] = self._prefetch(batches)

    def epoch(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """This worker's share of an epoch."""
        if epoch not in self._begun:
            self.begin(epoch)
        return self._begun.pop(epoch)

    def validation(self) -> Iterator[dict[str, Tensor]]:
        """This worker's share of the validation part; the shares may differ by a segment."""
        if self._validation.segments > HELD_SEGMENTS:
            return self._prefetch(self._read_validation())
        self._held = self._held or list(self._read_validation())
        return self._prefetch(iter(self._held))

    def _read_validation(self) -> Iterator[Batch]:
        return self._validation.ordered_batches(VALIDATION_BATCH[self._device.type], **self._worker)

    def _prefetch(self, batches: Iterator[Batch]) -> Iterator[dict[str, Tensor]]:
        pool = ThreadPoolExecutor(1)
        first = pool.submit(next, batches, None)

        def all_of_them() -> Iterator[dict[str, Tensor]]:
            with pool:
                waiting = first
                while (batch := waiting.result()) is not None:
                    waiting = pool.submit(next, batches, None)
                    yield {name: torch.from_numpy(array).to(self._device) for name, array in batch.items()}

        return all_of_them()
