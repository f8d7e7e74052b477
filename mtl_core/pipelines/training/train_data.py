"""Train data: which tracks train which model of a command, with their classes.

A command trains one model, or with the split `crossfit` one for each fold and then the final one.

Legend: N tracks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.dataset.crossfit import crossfit
from mtl_core.dataset.loader import SplitSegments, select_tracks
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.splits import CROSSFIT, NONE, split
from mtl_core.dataset.vocabulary import TASKS, Vocabulary, class_labels
from mtl_core.errors import InputError
from mtl_core.pipelines.training.train_loop import TrainParts

FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """The tracks of one model. Tables of tracks are rows of `MelDataset.tracks`, sorted by track_id."""

    name: str  # `FINAL`, or "fold-K"
    fold: int | None  # K; None: the final model
    vocabularies: dict[str, Vocabulary]  # task -> labels of the training tracks
    tracks: dict[str, pa.Table]  # "train", "validation" and "held_out" -> tracks
    known_N: np.ndarray  # of the held-out tracks: whether the model trains on other songs of the artist

    def parts(self, source: MelDataset) -> TrainParts:
        """Where the segments of the tracks are."""
        parts: dict[str, SplitSegments] = {}
        for name, tracks in self.tracks.items():
            targets = {
                task: vocabulary.encode(tracks[task].to_pylist()) for task, vocabulary in self.vocabularies.items()
            }
            parts[name] = select_tracks(source, tracks["track_id"], targets)
        return TrainParts(**parts)


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The mels, and the models that they train."""

    source: MelDataset
    split: dict[str, Any]  # the arguments of the split, as JSON values
    assignment: pa.Table  # the splits of the final model
    models: list[ModelData]  # the final one last

    @property
    def final(self) -> ModelData:
        return self.models[-1]


def n_segments(tracks: pa.Table) -> int:
    """Segments of all these tracks."""
    return int(pc.sum(tracks["segments"]).as_py() or 0)


def split_models(
    source: MelDataset,
    *,
    kind: str,
    tasks: Sequence[str],
    seed: int,
    fold: int,
    folds: int,
    group_column: str | None,
    with_validation: bool,
) -> tuple[list[ModelData], pa.Table]:
    """The models to train, the final one last, and its splits: track_id, split.

    Args:
        source: the mels.
        kind: `CROSSFIT`, `NONE`, or one of `splits.KINDS`.
        tasks: of the models.
        seed, group_column: of the split.
        fold: of the split `kfold`.
        folds: of `CROSSFIT`.
        with_validation: whether the validation part of a split chooses the epoch; else it trains, too.

    Raises:
        InputError: as `splits.split` and `crossfit.crossfit`, or a training part has no label of a task.
    """
    tracks = source.tracks
    if kind in (CROSSFIT, NONE):
        assignment = pa.table([tracks["track_id"], pa.repeat("train", len(tracks))], names=["track_id", "split"])
    else:
        assignment = split(tracks, kind=kind, seed=seed, fold=fold, group_column=group_column)
    part_N = np.array(assignment["split"].to_pylist(), object)
    if not with_validation:
        part_N[part_N == "validation"] = "train"
        assignment = assignment.set_column(1, "split", pa.array(part_N.tolist(), pa.string()))
    models = []
    if kind == CROSSFIT:
        folds_table = crossfit(tracks, folds=folds, seed=seed, group_column=group_column)
        fold_N, artist_fold_N = (np.array(folds_table[name].fill_null(-1)) for name in ("fold", "artist_fold"))
        for number in range(folds):
            of_artist_N = artist_fold_N == number
            held_out_N = (fold_N == number) | (of_artist_N & (fold_N >= 0))
            known_N = ~of_artist_N[held_out_N]
            data = _select(tracks, tasks, train=~(of_artist_N | held_out_N), held_out=held_out_N)
            models.append(ModelData(name=f"fold-{number}", fold=number, known_N=known_N, **data))
        if "artist" in tasks and not any(model.known_N.any() for model in models):
            raise InputError("no artist has two songs, so none can be scored on a new one: use --split none")
    validates_N = part_N == "validation"
    data = _select(tracks, tasks, train=part_N == "train", validation=validates_N, held_out=validates_N)
    models.append(ModelData(name=FINAL, fold=None, known_N=np.ones(int(validates_N.sum()), bool), **data))
    return models, assignment


def _select(
    tracks: pa.Table,
    tasks: Sequence[str],
    *,
    train: np.ndarray,
    held_out: np.ndarray,
    validation: np.ndarray | None = None,
) -> dict[str, Any]:
    masks = {"train": train, "validation": np.zeros(len(tracks), bool) if validation is None else validation}
    parts = {name: tracks.filter(pa.array(mask)) for name, mask in (masks | {"held_out": held_out}).items()}
    vocabularies = {
        task: Vocabulary.of(class_labels(task, parts["train"][task].to_pylist())) for task in TASKS if task in tasks
    }
    for task, vocabulary in vocabularies.items():
        if not len(vocabulary):
            raise InputError(f"no track of a training part has a label for {task!r}")
    return {"tracks": parts, "vocabularies": vocabularies}
