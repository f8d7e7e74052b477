"""Model artifacts with random weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.cosine_lda import SCALE
from mtl_core.storage.location import Location

LABELS = {"artist": tuple("abcdefg"), "language": ("de", "en", "fr")}


def untrained_artifact(labels: Mapping[str, Sequence[str]] = LABELS, **fields: Any) -> Artifact:
    """Make an artifact with the same random weights in every call.

    Args:
        labels: task -> its labels, sorted.
        fields: other fields of the artifact, or fields to replace.
    """
    torch.manual_seed(0)
    values = {
        "model": MultitaskCNN(ModelConfig(classes={task: len(names) for task, names in labels.items()})),
        "front_end": FrontEnd(),
        "vocabularies": {task: Vocabulary(tuple(names)) for task, names in labels.items()},
    }
    return Artifact(**{**values, **fields})


def with_class_means(labels: Mapping[str, Sequence[str]] = LABELS) -> Artifact:
    """An artifact whose heads are random class means, as `cosine_lda` makes them; the same in every call."""
    torch.manual_seed(0)
    parts = {task: {"artist": 80, "language": 16}[task] for task in labels}
    network = MultitaskCNN(ModelConfig(classes={task: len(names) for task, names in labels.items()}, parts=parts))
    first = 0
    with torch.no_grad():
        for task, size in parts.items():
            mean_CP = torch.nn.functional.normalize(torch.randn(len(labels[task]), size), dim=1)
            head = network.classifiers[task]
            head.weight.zero_()
            head.weight[:, first : first + size] = SCALE * mean_CP
            head.bias.zero_()
            first += size
    return untrained_artifact(labels, model=network)


def save(model: Artifact, folder: Location, split_of_track: Mapping[str, str] | None = None) -> Location:
    """Save an artifact with the splits track_id -> split, by default without any track; returns the folder."""
    splits = split_of_track or {}
    columns = {"track_id": pa.array(splits.keys(), pa.string()), "split": pa.array(splits.values(), pa.string())}
    artifact.save_artifact(model, pa.table(columns), folder)
    return folder
