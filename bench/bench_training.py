"""What a training costs: python bench/bench_training.py step | stream MELS [RECIPE]

step: forward, backward and Adam of the paper's network on one thread, and its forward pass in validation, as its layers
one by one (nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout) and as `mtl_core.blocks` computes them.
CPU milliseconds a segment; contenders take turns, medians.

stream: segments a second of Ray Train with one worker and streaming input, and of a plain loop over the same mels in
memory (`screen_recipes`), with the same threads; training and validation of an epoch, the first epoch of each try left
out. Tries take turns.
"""

import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from screen_recipes import Data, epochs, validate
from torch import nn

from mtl_core.inference import artifact
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN
from mtl_core.model.losses import label_counts, multitask_loss, task_weights
from mtl_core.model.recipes import RECIPES
from mtl_core.pipelines.train import train
from mtl_core.storage.location import Location

CLASSES = {"artist": 68, "language": 17}
REPEATS = 9
TRIES, EPOCHS = 3, 4


def layer_by_layer(model: MultitaskCNN, *, channels_last: bool) -> MultitaskCNN:
    """The same weights in torch's own layers."""
    plain = copy.deepcopy(model)
    for i, block in enumerate(plain.trunk):
        plain.trunk[i] = nn.Sequential(*[*block][:4], nn.Dropout(block[4].share))
    return plain.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def update(model: MultitaskCNN, X_B1TF: torch.Tensor) -> Callable[[], object]:
    recipe = RECIPES["paper"]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, eps=recipe.adam_eps)
    targets = {task: torch.randint(0, count, X_B1TF.shape[:1]) for task, count in CLASSES.items()}
    weights = task_weights(CLASSES)

    def once() -> None:
        model.train()
        loss = multitask_loss(model(X_B1TF), targets, counts=label_counts(targets), weights=weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return once


def validation(model: MultitaskCNN, X_B1TF: torch.Tensor) -> Callable[[], object]:
    def once() -> None:
        model.eval()
        with torch.inference_mode():
            model(X_B1TF)

    return once


def cpu_ms(work: Callable[[], object]) -> float:
    began_s = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - began_s)


def bench_step() -> None:
    torch.set_num_threads(1)
    for batch in (16, 32):
        X_B1TF = torch.rand(batch, 1, FRAMES, BANDS)
        torch.manual_seed(0)
        ours = MultitaskCNN(ModelConfig(classes=CLASSES))
        models = {
            "layer by layer": layer_by_layer(ours, channels_last=False),
            "layer by layer, channels_last": layer_by_layer(ours, channels_last=True),
            "blocks": ours,
        }
        for what, make in (("update", update), ("validation", validation)):
            contenders = {name: make(model, X_B1TF) for name, model in models.items()}
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for repeat in range(-2, REPEATS):
                for name, work in contenders.items():
                    ms = cpu_ms(work) / batch
                    if repeat >= 0:
                        times[name].append(ms)
            medians = {name: float(np.median(values)) for name, values in times.items()}
            print(f"{what}, batch {batch}, CPU ms a segment: median (lowest to highest)")
            for name, values in times.items():
                ratio = medians["layer by layer"] / medians[name]
                print(f"  {name:32s}{medians[name]:6.1f}   ({min(values):.1f} to {max(values):.1f})   {ratio:.2f} x")


def bench_stream(mels: str, recipe: str = "paper") -> None:
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    data, numbers = Data(mels), replace(RECIPES[recipe], epochs=EPOCHS)
    segments = len(data.of("train")) + len(data.of("validation"))
    seconds: dict[str, list[float]] = {"plain loop": [], "Ray Train": []}
    for _ in range(TRIES):
        began_s = time.monotonic()
        for epoch, model in enumerate(epochs(data, numbers, 0)):
            validate(data, model, numbers)
            if epoch:
                seconds["plain loop"].append(time.monotonic() - began_s)
            began_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            out = Location(folder)
            train(mels=Location(mels), out=out, recipe=recipe, split="kfold", epochs=EPOCHS)
            history = artifact.load_artifact(out).metrics["history"]
        seconds["Ray Train"] += [epoch["seconds"] for epoch in history[1:]]
        print({name: [round(one, 2) for one in values] for name, values in seconds.items()}, file=sys.stderr)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    print(f"{recipe}, {segments} segments an epoch, {threads} threads; segments a second: median (lowest to highest)")
    for name, values in seconds.items():
        speeds = [segments / value for value in values]
        print(f"  {name:12s}{segments / medians[name]:6.1f}   ({min(speeds):.1f} to {max(speeds):.1f})")
    print(f"Ray Train / plain loop: {medians['plain loop'] / medians['Ray Train']:.1%}")


if __name__ == "__main__":
    {"step": bench_step, "stream": bench_stream}[sys.argv[1]](*sys.argv[2:])
