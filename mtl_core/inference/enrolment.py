"""Enrolment: a model gains, loses or renames classes without training.

The heads of `model.cosine_lda` are class means: a class is the direction of the mean embedding of its tracks. A new
class needs a few tracks, and nothing else of the model changes. Rows of the tags table can be tagged again from their
embeddings (`embedding_tagger`).

Legend: N tracks, E embedding (96), C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.model.cnn import MultitaskCNN


def enrol(artifact: Artifact, task: str, tracks: Mapping[str, np.ndarray]) -> Artifact:
    """The model with more classes.

    Args:
        artifact: a model whose heads are class means.
        task: of the classes.
        tracks: label of a new class -> (N, E) the mean embeddings of its tracks, 1 or more.

    Raises:
        InputError: the heads are no class means, or a class exists or has no direction.
    """
    _check(artifact, task)
    existing = sorted(set(tracks) & set(artifact.vocabularies[task].labels))
    if existing:
        raise InputError(
            f"the model knows the {task} {existing[0]!r} already ({len(existing)} in all): remove it first"
        )
    head = artifact.heads[task]
    length = np.linalg.norm(head.weight_CE, axis=1).max()
    rows = dict(zip(artifact.vocabularies[task].labels, head.weight_CE, strict=True))
    for label, embedding_NE in tracks.items():
        mean_E = np.where(head.used_values, embedding_NE.mean(0, dtype=np.float64), 0)
        if not np.linalg.norm(mean_E) > 0:
            raise InputError(f"the {task} {label!r} has no direction: the embeddings of its tracks are 0")
        rows[label] = length * mean_E / np.linalg.norm(mean_E)
    counts = {label: len(embedding_NE) for label, embedding_NE in tracks.items()}
    return _with_classes(artifact, task, rows, {"enrolled": counts})


def remove(artifact: Artifact, task: str, labels: Sequence[str]) -> Artifact:
    """The model without some classes. Raises InputError where one does not exist, or none is left."""
    _check(artifact, task)
    rows = dict(zip(artifact.vocabularies[task].labels, artifact.heads[task].weight_CE, strict=True))
    for label in labels:
        _pop(rows, task, label)
    if not rows:
        raise InputError(f"the model would have no {task} left: drop its head instead")
    return _with_classes(artifact, task, rows, {"removed": sorted(labels)})


def rename(artifact: Artifact, task: str, old: str, new: str) -> Artifact:
    """The model with another name for a class. Raises InputError where it does not exist, or the new name does."""
    _check(artifact, task)
    rows = dict(zip(artifact.vocabularies[task].labels, artifact.heads[task].weight_CE, strict=True))
    row_E = _pop(rows, task, old)
    if not new or new in rows:
        raise InputError(f"the {task} {old!r} cannot be renamed to {new!r}: this name is taken or empty")
    return _with_classes(artifact, task, rows | {new: row_E}, {"renamed": {old: new}})


def _check(artifact: Artifact, task: str) -> None:
    if task not in artifact.vocabularies:
        raise InputError(f"the model has no head for {task}: it has {', '.join(artifact.vocabularies)}")
    if artifact.model.config.parts is None:
        raise InputError("the heads of this model are no class means: its classes can only change by training")


def _pop(rows: dict[str, np.ndarray], task: str, label: str) -> np.ndarray:
    if label not in rows:
        raise InputError(f"the model does not know the {task} {label!r}")
    return rows.pop(label)


def _with_classes(artifact: Artifact, task: str, rows: Mapping[str, np.ndarray], change: dict[str, Any]) -> Artifact:
    """The model with these classes, label -> weights (E,), in one task, and the change in its metrics."""
    labels = sorted(rows)
    config = artifact.model.config
    model = MultitaskCNN(replace(config, classes={**config.classes, task: len(labels)}))
    state = artifact.model.state_dict()
    state[f"classifiers.{task}.weight"] = torch.tensor(np.stack([rows[label] for label in labels]), dtype=torch.float32)
    state[f"classifiers.{task}.bias"] = torch.zeros(len(labels))
    model.load_state_dict(state)
    return replace(
        artifact,
        model=model.eval(),
        out_of_fold=None,  # what fold models of other classes say is no test of these
        vocabularies={**artifact.vocabularies, task: Vocabulary(tuple(labels))},
        metrics={**artifact.metrics, "changed": [*artifact.metrics.get("changed", []), {"task": task, **change}]},
    )
