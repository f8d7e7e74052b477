"""Artifact: a trained model together with everything that its use needs, in one folder (`artifact_files`).

Tagging takes an artifact and nothing else that shapes the network's input. This module imports torch;
`openvino_engine` loads the same folder without it.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import torch

from mtl_core.audio.filter_bank import pack
from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.artifacts.artifact_files import (
    CARD_FILE,
    FILTER_BANK_FILE,
    FORMAT_VERSION,
    MODEL_FILE,
    NETWORK_FILE,
    OUT_OF_FOLD_FILE,
    SPLITS_FILE,
    WEIGHTS_FILE,
    as_invalid_model,
    content_hash,
    invalid_model,
    read_header,
    trunk_hash,
)
from mtl_core.inference.artifacts.model_card import model_card
from mtl_core.inference.artifacts.onnx_export import export_onnx
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import Head, read_heads
from mtl_core.inference.tagging.tagger import Engine, Tagger
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model ready for use. Raises ValueError where the vocabularies do not fit the model's heads."""

    model: MultitaskCNN  # in eval mode, on the CPU, float32
    front_end: FrontEnd  # makes the model's input
    vocabularies: dict[str, Vocabulary]  # task -> classes, one for each head of the model
    aggregation: Aggregation = field(default_factory=Aggregation)  # turns segments into a track's tag
    fingerprint: str = ""  # of the training data; "" where there is none
    metrics: dict[str, Any] = field(default_factory=dict)  # of the training: split, seed, history, scores; JSON values
    versions: dict[str, str] = field(default_factory=dict)  # of the software that trained it
    recipe: dict[str, Any] = field(default_factory=dict)  # every number of the training; JSON values
    out_of_fold: pa.Table | None = None  # rows of `schema.OUT_OF_FOLD`; None: the model was not cross-fitted

    def __post_init__(self) -> None:
        labels = {task: len(vocabulary) for task, vocabulary in self.vocabularies.items()}
        if labels != dict(self.model.config.classes):
            raise ValueError(f"vocabularies of {labels} labels do not fit a model of {dict(self.model.config.classes)}")
        self.model.eval()

    @property
    def heads(self) -> dict[str, Head]:
        """Task -> its head, by which tracks are tagged."""
        return read_heads(_weights(self), self.vocabularies)

    def tagger(self, engine: Engine, options: ExitOptions | None = None) -> Tagger:
        """A tagger that runs the network in the engine."""
        return Tagger(
            engine,
            self.front_end,
            self.heads,
            self.vocabularies,
            self.aggregation,
            options,
            trunk_id=trunk_id(self),
        )


def model_id(artifact: Artifact) -> str:
    """16 hexadecimal digits of a SHA-256 over everything that can change a tag.

    These are the weights, the front end, the model, the vocabularies and the aggregation. Metrics, recipe, dates,
    versions and the format of the weights' file do not count.
    """
    return content_hash(_inference_fields(artifact), _weights(artifact))


def trunk_id(artifact: Artifact) -> str:
    """16 hexadecimal digits that models share whose embeddings are the same: front end, and network less its heads."""
    return trunk_hash(_inference_fields(artifact), _weights(artifact))


def save_artifact(artifact: Artifact, splits: pa.Table, location: Location) -> str:
    """Write an artifact and its splits into a folder, replacing files that exist, and return its `model_id`.

    Args:
        artifact: the model to save.
        splits: track_id, split in train | validation | test.
        location: the folder.
    """
    weights, fields = _weights(artifact), _inference_fields(artifact)
    files = {
        WEIGHTS_FILE: safetensors.numpy.save(weights),
        NETWORK_FILE: export_onnx(artifact.model),
        FILTER_BANK_FILE: pack(artifact.front_end.filter_bank),
        SPLITS_FILE: bytes(to_bytes(splits.select(["track_id", "split"]))),
    }
    if artifact.out_of_fold is not None:
        files[OUT_OF_FOLD_FILE] = bytes(to_bytes(artifact.out_of_fold, compression="zstd"))
    values = {
        "format_version": FORMAT_VERSION,
        "model_id": content_hash(fields, weights),
        "trunk_id": trunk_hash(fields, weights),
        **fields,
        "fingerprint": artifact.fingerprint,
        "metrics": artifact.metrics,
        "recipe": artifact.recipe,
        "versions": artifact.versions,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files[CARD_FILE] = model_card(values, Counter(splits["split"].to_pylist())).encode()
    for name, data in files.items():
        (location / name).write_bytes(data)
    # Written last: it makes the folder a model. The losses of an epoch that diverged are NaN.
    (location / MODEL_FILE).write_json(values, allow_nan=True)
    return str(values["model_id"])


def load_artifact(location: Location) -> Artifact:
    """Load the artifact in a folder, with its model in eval mode on the CPU.

    Raises:
        InputError: a file is missing, damaged or of another save, or a field is missing or does not fit the rest.
    """
    header = read_header(location)
    weights, values = header.read_weights(), header.values
    header.read_file(SPLITS_FILE)
    out_of_fold = header.read_file(OUT_OF_FOLD_FILE) if OUT_OF_FOLD_FILE in values["sha256"] else None
    with as_invalid_model(location):
        artifact = Artifact(
            model=_load_model(ModelConfig.from_dict(values["model"]), weights, location),
            front_end=header.front_end,
            vocabularies=header.vocabularies,
            aggregation=header.aggregation,
            fingerprint=values["fingerprint"],
            metrics=values["metrics"],
            versions=values["versions"],
            recipe=values["recipe"],
            out_of_fold=None if out_of_fold is None else pq.read_table(io.BytesIO(out_of_fold)),
        )
    header.check_identity(weights)
    return artifact


def load_splits(location: Location) -> pa.Table:
    """The artifact's splits: track_id, split in train | validation | test. Raises InputError as `load_artifact`."""
    data = read_header(location).read_file(SPLITS_FILE)
    return pq.read_table(io.BytesIO(data), columns=["track_id", "split"])


def _weights(artifact: Artifact) -> dict[str, np.ndarray]:
    state = artifact.model.state_dict()
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}


def _inference_fields(artifact: Artifact) -> dict[str, Any]:
    """Everything beside the weights that can change a tag, as JSON values."""
    return {
        "front_end": artifact.front_end.to_dict(),
        "model": artifact.model.config.to_dict(),
        "vocabularies": {task: list(vocabulary.labels) for task, vocabulary in artifact.vocabularies.items()},
        "aggregation": artifact.aggregation.to_dict(),
    }


def _load_model(config: ModelConfig, weights: Mapping[str, np.ndarray], location: Location) -> MultitaskCNN:
    random_state = torch.get_rng_state()
    model = MultitaskCNN(config)
    torch.set_rng_state(random_state)  # loading must not change the caller's next random numbers
    shapes = {name: array.shape for name, array in weights.items()}
    model_shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted({*model_shapes, *shapes}):
        shape, expected = shapes.get(name), model_shapes.get(name)
        if shape != expected:
            raise invalid_model(location, f"{WEIGHTS_FILE}: {name} is {shape}, {MODEL_FILE} asks for {expected}")
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise invalid_model(location, f"{WEIGHTS_FILE} holds values that are not finite")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()
