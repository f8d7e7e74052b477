"""Artifact: a trained model with everything that made it and that its use needs, in one folder.

    weights.safetensors   every parameter and running statistic (never a pickle), the same bytes for the same model
    network.xml, .bin     the same network as CPU workers run it (`network.py`), made of the weights
    model.json            front end, model, vocabularies, aggregation; data's fingerprint, recipe, metrics, versions
    splits.parquet        track_id, split: which tracks it was trained, chosen and tested on
    README.md             its model card

Whether the files belong together is checked (`model_folder.py`). Tagging takes an artifact and nothing else that shapes
its input (beat_this, `load_model`).
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.artifact_files import (
    CARD_FILE,
    FORMAT_VERSION,
    MODEL_FILE,
    NETWORK_GRAPH,
    NETWORK_WEIGHTS,
    SPLITS_FILE,
    WEIGHTS_FILE,
    as_invalid_model,
    check_identity,
    content_hash,
    invalid_model,
    read_file,
    read_values,
)
from mtl_core.inference.model_card import model_card
from mtl_core.inference.openvino_export import export_openvino
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model ready for use.

    Args:
        model: in eval mode, on the CPU, float32.
        front_end: what made its input.
        vocabularies: task -> classes, one for each head of the model.
        aggregation: how its segments become a track's tag.
        fingerprint: of the data it was trained on; "" where there is none.
        metrics: what training saw: split, seed, history, scores; JSON values.
        versions: of the software that made it; JSON values.
        recipe: every number of the training; JSON values.

    Raises:
        ValueError: the vocabularies are not those of the model's heads.
    """

    model: MultitaskCNN
    front_end: FrontEnd
    vocabularies: dict[str, Vocabulary]
    aggregation: Aggregation = field(default_factory=Aggregation)
    fingerprint: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = {task: len(vocabulary) for task, vocabulary in self.vocabularies.items()}
        if labels != dict(self.model.config.classes):
            raise ValueError(f"vocabularies of {labels} labels do not fit a model of {dict(self.model.config.classes)}")
        self.model.eval()


def model_id(artifact: Artifact) -> str:
    """16 hexadecimal digits of a SHA-256 over all that can change a tag.

    These are the weights, the front end, the model, the vocabularies and the aggregation; not metrics, recipe, dates
    and versions, nor the format of the weights' file.
    """
    return content_hash(_what_tags(artifact), {name: tensor.numpy() for name, tensor in _state(artifact).items()})


def _state(artifact: Artifact) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.model.state_dict().items()}


def save_artifact(artifact: Artifact, splits: pa.Table, location: Location) -> str:
    """Write the artifact's files, replacing those that are there, and return its `model_id`.

    Args:
        artifact: what to keep.
        splits: track_id, split in train | validation | test.
        location: the folder.
    """
    table = io.BytesIO()
    pq.write_table(splits.select(["track_id", "split"]), table)
    graph, weights = export_openvino(artifact.model)
    files = {
        WEIGHTS_FILE: safetensors.torch.save(_state(artifact)),
        NETWORK_GRAPH: graph,
        NETWORK_WEIGHTS: weights,
        SPLITS_FILE: table.getvalue(),
    }
    name_of_model = model_id(artifact)
    values = {
        "format_version": FORMAT_VERSION,
        "model_id": name_of_model,
        **_what_tags(artifact),
        "fingerprint": artifact.fingerprint,
        "metrics": artifact.metrics,
        "recipe": artifact.recipe,
        "versions": artifact.versions,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    counts = {part.as_py(): splits["split"].to_pylist().count(part.as_py()) for part in splits["split"].unique()}
    files[CARD_FILE] = model_card(values, counts).encode()
    files[MODEL_FILE] = (
        json.dumps(values, indent=1, sort_keys=True) + "\n"
    ).encode()  # last: it makes the folder a model
    for name, data in files.items():
        (location / name).write_bytes(data)
    return name_of_model


def load_artifact(location: Location) -> Artifact:
    """The artifact in a folder, its model in eval mode on the CPU.

    Raises:
        InputError: a file is missing, damaged or of another save, or a field is missing or does not fit the rest.
    """
    values = read_values(location)
    weights = read_file(location, WEIGHTS_FILE, values)
    read_file(location, SPLITS_FILE, values)
    with as_invalid_model(location):
        config = ModelConfig.from_dict(values["model"])
        artifact = Artifact(
            model=_model(config, weights, location),
            front_end=FrontEnd.from_dict(values["front_end"]),
            vocabularies={task: Vocabulary(tuple(labels)) for task, labels in values["vocabularies"].items()},
            aggregation=Aggregation.from_dict(values["aggregation"]),
            fingerprint=values["fingerprint"],
            metrics=values["metrics"],
            versions=values["versions"],
            recipe=values["recipe"],
        )
    check_identity(location, values, model_id(artifact))
    return artifact


def load_splits(location: Location) -> pa.Table:
    """The artifact's splits: track_id, split in train | validation | test.

    Raises:
        InputError: the file is missing, damaged or of another save.
    """
    data = read_file(location, SPLITS_FILE, read_values(location))
    return pq.read_table(io.BytesIO(data), columns=["track_id", "split"])


def _what_tags(artifact: Artifact) -> dict[str, Any]:
    """Everything beside the weights that can change a tag, as JSON values."""
    return {
        "front_end": artifact.front_end.to_dict(),
        "model": artifact.model.config.to_dict(),
        "vocabularies": {task: list(vocabulary.labels) for task, vocabulary in artifact.vocabularies.items()},
        "aggregation": artifact.aggregation.to_dict(),
    }


def _model(config: ModelConfig, weights: bytes, location: Location) -> MultitaskCNN:
    try:
        state = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise invalid_model(location, f"{WEIGHTS_FILE} cannot be read: {error}") from None
    random_state = torch.get_rng_state()
    model = MultitaskCNN(config)
    torch.set_rng_state(random_state)  # loading must not shift what the caller draws next
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise invalid_model(
                location, f"{WEIGHTS_FILE}: {name} is {found.get(name)}, {MODEL_FILE} asks for {expected.get(name)}"
            )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise invalid_model(location, f"{WEIGHTS_FILE} holds values that are not finite")
    model.load_state_dict(state)
    return model.eval()
