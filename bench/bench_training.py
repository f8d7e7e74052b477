"""What a training costs: python bench/bench_training.py step | stream MELS [RECIPE]

step: an update of each recipe's network, and its forward pass in validation, on one thread, in torch's default order of
values and in channels_last, which training uses. CPU milliseconds a segment; contenders take turns, medians.

stream: segments a second of Ray Train with one worker, which reads its mels anew in each epoch, and of a loop over the
same mels in memory (`screen_recipes`), with the same threads. Training and validation of an epoch count; the first
epoch of each try does not. Tries take turns.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from screen_recipes import Data, epochs

from mtl_core.audio.front_end import FrontEnd
from mtl_core.inference.artifacts import artifact
from mtl_core.model.cnn import BANDS, FRAMES, MultitaskCNN
from mtl_core.model.embedding_moments import embedding_moments
from mtl_core.model.recipes import RECIPES, Recipe
from mtl_core.model.train_step import make_optimizer, train_epoch, validate
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.storage.location import Location

CLASSES = {"artist": 68, "language": 17}
REPEATS = 9
TRIES, EPOCHS = 3, 4
ORDERS = {"default order": torch.contiguous_format, "channels_last": torch.channels_last}


def update(model: MultitaskCNN, batch: dict[str, torch.Tensor], recipe: Recipe) -> Callable[[], object]:
    optimizer = make_optimizer(model, recipe)
    return lambda: train_epoch(model, optimizer, [batch], recipe, classes=CLASSES, epoch=1, updates=1)


def forward(model: MultitaskCNN, batch: dict[str, torch.Tensor], recipe: Recipe) -> Callable[[], object]:
    return lambda: embedding_moments(model, [batch], len(batch["track"]), FrontEnd())


def cpu_ms(work: Callable[[], object]) -> float:
    start_s = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - start_s)


def bench_step() -> None:
    torch.set_num_threads(1)
    for batch_size in (16, 32):
        targets = {task: torch.randint(0, count, (batch_size,)) for task, count in CLASSES.items()}
        batch = {"mel": torch.rand(batch_size, FRAMES, BANDS), "track": torch.arange(batch_size), **targets}
        for name in ("paper", "best"):
            for work in (update, forward):
                contenders = {}
                for order, memory_format in ORDERS.items():
                    torch.manual_seed(0)
                    model = MultitaskCNN(RECIPES[name].model_config(CLASSES))
                    contenders[order] = work(model.to(memory_format=memory_format), batch, RECIPES[name])
                print(f"{name}, {work.__name__}, batch {batch_size}, CPU ms a segment: median (lowest to highest)")
                for order, times in take_turns(contenders, batch_size).items():
                    print(f"  {order:16s}{np.median(times):6.1f}   ({min(times):.1f} to {max(times):.1f})")


def take_turns(contenders: dict[str, Callable[[], object]], batch_size: int) -> dict[str, list[float]]:
    """CPU ms a segment of each contender's repeats."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(-2, REPEATS):
        for name, work in contenders.items():
            ms = cpu_ms(work) / batch_size
            if repeat >= 0:
                times[name].append(ms)
    return times


def bench_stream(mels: str, recipe: str = "paper") -> None:
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    data, numbers = Data(mels), replace(RECIPES[recipe], epochs=EPOCHS)
    segments = len(data.segments("train")) + len(data.segments("validation"))
    seconds: dict[str, list[float]] = {"plain loop": [], "Ray Train": []}
    for _ in range(TRIES):
        start_s = time.monotonic()
        for epoch, model in enumerate(epochs(data, numbers, 0)):
            validate(model, data.validation(), numbers, classes=data.classes)
            if epoch:
                seconds["plain loop"].append(time.monotonic() - start_s)
            start_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            out = Location(folder)
            train(Location(mels), out, TrainOptions(recipe=recipe, split="kfold", epochs=EPOCHS))
            history = artifact.load_artifact(out).metrics["history"]
        seconds["Ray Train"] += [epoch["seconds"] for epoch in history[1:]]
        print({name: [round(value, 2) for value in values] for name, values in seconds.items()}, file=sys.stderr)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    print(f"{recipe}, {segments} segments an epoch, {threads} threads; segments a second: median (lowest to highest)")
    for name, values in seconds.items():
        speeds = [segments / value for value in values]
        print(f"  {name:12s}{segments / medians[name]:6.1f}   ({min(speeds):.1f} to {max(speeds):.1f})")
    print(f"Ray Train / plain loop: {medians['plain loop'] / medians['Ray Train']:.1%}")


if __name__ == "__main__":
    {"step": bench_step, "stream": bench_stream}[sys.argv[1]](*sys.argv[2:])
