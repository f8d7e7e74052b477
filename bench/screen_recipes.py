"""Recipes side by side on the validation part: python bench/screen_recipes.py MELS RECIPE[,FIELD=VALUE]... [SEED]...

A plain PyTorch loop over mels in memory with the model, augmentation and loss that training uses, no Ray, one thread.
The split is `kfold`, fold 0, seed 0 (one song of each artist validates; the test part is never looked at); a SEED
starts weights, batches and dropout. Prints for each recipe and seed the validation tracks' macro AUC-PR at the epoch
with the best validation loss, which is what training would keep. Example: `best,mixup=0.0 best 0 1 2`.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from mtl_core.dataset import splits
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.inference.aggregation import track_probabilities
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.losses import label_counts, multitask_loss, task_weights
from mtl_core.model.mixup import mixup
from mtl_core.model.recipes import RECIPES, Recipe
from mtl_core.storage.location import Location

VALIDATION_BATCH = 16


class Data:
    """Mels in memory: segments X_S1TF float16, `track_S`, a track's `part`, and labels a task and track."""

    def __init__(self, location: str) -> None:
        source = open_mel_dataset(Location(location))
        ids = source.tracks["track_id"].to_pylist()
        self.part = np.array(splits.split(source.tracks, kind="kfold", seed=0)["split"].to_pylist())
        train = self.part == "train"
        labels = {task: np.array(source.tracks[task].to_pylist(), object) for task in TASKS}
        vocabularies = {task: Vocabulary.of(labels[task][train]) for task in TASKS}
        self.classes = {task: len(vocabulary) for task, vocabulary in vocabularies.items()}
        self.labels = {task: vocabularies[task].encode(labels[task]) for task in TASKS}
        place = {track_id: i for i, track_id in enumerate(ids)}
        tables = [pq.read_table(file.path, columns=["track_id", "mel"]) for file in source.files]
        self.track_S = np.array([place[one] for table in tables for one in table["track_id"].to_pylist()])
        mels = [table["mel"].combine_chunks().to_numpy_ndarray() for table in tables]
        self.X_S1TF = torch.from_numpy(np.concatenate(mels))[:, None]

    def of(self, part: str) -> np.ndarray:
        """Places of the part's segments."""
        return np.flatnonzero(self.part[self.track_S] == part)

    def batch(self, places_B: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        targets = {task: torch.from_numpy(self.labels[task][self.track_S[places_B]]) for task in TASKS}
        return self.X_S1TF[places_B].float(), targets


def epochs(data: Data, recipe: Recipe, seed: int) -> Iterator[MultitaskCNN]:
    """The model after each epoch of `training_loop`'s mathematics on one worker."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    config = ModelConfig(
        classes=data.classes,
        trunk=recipe.trunk,
        dropout=recipe.dropout,
        batch_norm_momentum=recipe.batch_norm_momentum,
    )
    model = MultitaskCNN(config)
    optimizer = torch.optim.AdamW(model.parameters(), eps=recipe.adam_eps, weight_decay=recipe.weight_decay)
    weights = task_weights(data.classes, recipe.alpha)
    places_S = data.of("train")
    updates = -(-len(places_S) // recipe.global_batch)
    for epoch in range(recipe.epochs):
        model.train()
        for update, places_B in enumerate(np.array_split(draw.permutation(places_S), updates)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at((epoch + update / updates) / recipe.epochs)
            X_B1TF, targets = data.batch(places_B)
            parts = [(1.0, targets)]
            if recipe.mixup:
                X_B1TF, parts = mixup(X_B1TF, targets, recipe.mixup)
            logits = model(X_B1TF)
            counts = label_counts(targets)
            losses = [share * multitask_loss(logits, part, counts=counts, weights=weights) for share, part in parts]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
        yield model


@torch.inference_mode()
def validate(data: Data, model: MultitaskCNN, recipe: Recipe) -> tuple[float, dict[str, float]]:
    """Validation loss, and each task's macro AUC-PR on tracks."""
    model.eval()
    places_S = data.of("validation")
    found = [
        model(data.batch(places_S[first : first + VALIDATION_BATCH])[0])
        for first in range(0, len(places_S), VALIDATION_BATCH)
    ]
    logits = {task: torch.cat([one[task] for one in found]) for task in TASKS}
    targets = data.batch(places_S)[1]
    weights = task_weights(data.classes, recipe.alpha)
    loss = float(multitask_loss(logits, targets, counts=label_counts(targets), weights=weights))
    tracks = np.unique(data.track_S[places_S])
    scores = {}
    for task in TASKS:
        of_track = [logits[task].numpy()[data.track_S[places_S] == track] for track in tracks]
        p_NC = np.stack([track_probabilities(one) for one in of_track])
        true_N = data.labels[task][tracks]
        precisions = [average_precision_score(true_N == c, p_NC[:, c]) for c in np.unique(true_N[true_N >= 0])]
        scores[task] = float(np.mean(precisions))
    return loss, scores


def changed(text: str) -> Recipe:
    """`NAME,FIELD=VALUE,…` -> that recipe with those fields."""
    name, *fields = text.split(",")
    recipe = RECIPES[name]
    for field in fields:
        key, _, value = field.partition("=")
        kind = str if isinstance(getattr(recipe, key), str) else type(getattr(recipe, key))
        recipe = replace(recipe, **{key: kind(value)})
    return recipe


def main() -> None:
    torch.set_num_threads(1)
    data = Data(sys.argv[1])
    seeds = [int(argument) for argument in sys.argv[2:] if argument.isdigit()] or [0]
    for text in (argument for argument in sys.argv[2:] if not argument.isdigit()):
        recipe = changed(text)
        for seed in seeds:
            began_s, history = time.process_time(), []
            for model in epochs(data, recipe, seed):
                history.append(validate(data, model, recipe))
            best = min(range(len(history)), key=lambda at: history[at][0])
            scores = ", ".join(f"{task} {100 * score:.1f}" for task, score in history[best][1].items())
            last = ", ".join(f"{task} {100 * score:.1f}" for task, score in history[-1][1].items())
            print(
                f"{text} seed {seed}: epoch {best + 1} of {recipe.epochs}, loss {history[best][0]:.2f}, AUC-PR {scores}"
                f" (last epoch: {last}), {time.process_time() - began_s:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
