"""Recipes side by side on the validation part: python bench/screen_recipes.py MELS RECIPE[,FIELD=VALUE]... [SEED]...

A loop over mels in memory with the mathematics of training (`model.train_step`), no Ray, one thread. The split is
`kfold`, fold 0, seed 0: one song of each artist is in the validation part, and the test part is not used. A SEED sets
initial weights, batches and dropout. Prints for each recipe and seed the validation tracks' macro AUC-PR of the model
that training would keep. Example: `best,mixup=0.0 best 0 1 2`.
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
from mtl_core.inference.tagging.softmax import probabilities
from mtl_core.model.cnn import MultitaskCNN, with_cosine_heads
from mtl_core.model.cosine_lda import fit_cosine_lda
from mtl_core.model.embedding_moments import embedding_moments, mean_embeddings, value_moments
from mtl_core.model.recipes import RECIPES, Recipe
from mtl_core.model.train_step import make_optimizer, train_epoch, validate
from mtl_core.storage.location import Location

BATCH = 16


class Data:
    """Mels in memory.

    Attributes:
        part: (N,) the split of each track.
        labels: task -> (N,) classes of the tracks.
        classes: task -> number of classes.
        front_end: of the mels.
        track_S: the track of each segment.
        mel_STF: segments, float16.
    """

    def __init__(self, location: str) -> None:
        source = open_mel_dataset(Location(location))
        self.front_end = source.front_end
        track_ids = source.tracks["track_id"].to_pylist()
        self.part = np.array(splits.split(source.tracks, kind="kfold", seed=0)["split"].to_pylist())
        train = self.part == "train"  # the validation part is the test here
        names = {task: np.array(source.tracks[task].to_pylist(), object) for task in TASKS}
        vocabularies = {task: Vocabulary.of(names[task][train]) for task in TASKS}
        self.classes = {task: len(vocabulary) for task, vocabulary in vocabularies.items()}
        self.labels = {task: vocabularies[task].encode(names[task]) for task in TASKS}
        position = {track_id: i for i, track_id in enumerate(track_ids)}
        tables = [pq.read_table(file.path, columns=["track_id", "mel"]) for file in source.files]
        self.track_S = np.array([position[track_id] for table in tables for track_id in table["track_id"].to_pylist()])
        self.mel_STF = torch.from_numpy(
            np.concatenate([table["mel"].combine_chunks().to_numpy_ndarray() for table in tables])
        )

    def segments(self, part: str) -> np.ndarray:
        """Indices of the segments of a part."""
        return np.flatnonzero(self.part[self.track_S] == part)

    def batch(self, segments_B: np.ndarray) -> dict[str, Tensor]:
        """These segments, as `train_step` takes them."""
        track_B = self.track_S[segments_B]
        targets = {task: torch.from_numpy(self.labels[task][track_B]) for task in TASKS}
        return {"mel": self.mel_STF[segments_B], "track": torch.from_numpy(track_B), **targets}

    def validation(self) -> Iterator[dict[str, Tensor]]:
        """Batches of the validation part."""
        segments_S = self.segments("validation")
        for first in range(0, len(segments_S), BATCH):
            yield self.batch(segments_S[first : first + BATCH])


def epochs(data: Data, recipe: Recipe, seed: int) -> Iterator[MultitaskCNN]:
    """The model after each epoch."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = MultitaskCNN(recipe.model_config(data.classes))
    optimizer = make_optimizer(model, recipe)
    segments_S = data.segments("train")
    updates = -(-len(segments_S) // recipe.global_batch)
    for epoch in range(1, recipe.epochs + 1):
        batches = map(data.batch, np.array_split(random.permutation(segments_S), updates))
        train_epoch(model, optimizer, batches, recipe, classes=data.classes, epoch=epoch, updates=updates)
        yield model


def finished(data: Data, model: MultitaskCNN, recipe: Recipe) -> MultitaskCNN:
    """The trained model with the heads of its recipe."""
    if recipe.heads == "softmax":
        return model
    segments_S = data.segments("train")
    batches = (data.batch(segments_S[first : first + BATCH]) for first in range(0, len(segments_S), BATCH))
    moments = value_moments(model, batches, len(data.part), data.front_end, sample_every=1)
    return with_cosine_heads(model, fit_cosine_lda(moments, data.labels, data.classes, model.config.trunk_output))


def score(data: Data, model: MultitaskCNN) -> dict[str, float]:
    """Each task's macro AUC-PR on the validation tracks."""
    moments = embedding_moments(model, data.validation(), len(data.part), data.front_end)
    tracks_N = np.flatnonzero(moments.count_N)
    embedding_NE = torch.from_numpy(mean_embeddings(moments)[tracks_N])
    scores = {}
    for task, logits_NC in model.heads(embedding_NE).items():
        p_NC = probabilities(logits_NC.detach().numpy())
        true_N = data.labels[task][tracks_N]
        precisions = [average_precision_score(true_N == c, p_NC[:, c]) for c in np.unique(true_N[true_N >= 0])]
        scores[task] = float(np.mean(precisions))
    return scores


def modified_recipe(text: str) -> Recipe:
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
        recipe = modified_recipe(text)
        for seed in seeds:
            began_s, losses, states = time.process_time(), [], []
            for model in epochs(data, recipe, seed):
                losses.append(validate(model, data.validation(), recipe, classes=data.classes).loss)
                states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            best = int(np.argmin(losses)) if recipe.checkpoint == "lowest_validation_loss" else len(losses) - 1
            model.load_state_dict(states[best])
            scores = score(data, finished(data, model, recipe))
            text_of_scores = ", ".join(f"{task} {100 * value:.1f}" for task, value in scores.items())
            print(
                f"{text} seed {seed}: epoch {best + 1} of {recipe.epochs}, loss {losses[best]:.2f}, "
                f"AUC-PR {text_of_scores}, {time.process_time() - began_s:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
