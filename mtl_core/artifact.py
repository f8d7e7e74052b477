"""Artifact: a trained model with everything that made it and that its use needs, in one folder.

    weights.safetensors   every parameter and running statistic (never a pickle), the same bytes for the same model
    model.json            front end, model, vocabularies, aggregation; data's fingerprint, recipe, metrics, versions
    splits.parquet        track_id, split: which tracks it was trained, chosen and tested on
    README.md             its model card

`model.json` is written last and carries the hashes of the weights and the splits: a folder in which two saves mix, or
one was not finished, is no model. Tagging takes an artifact and nothing else that shapes its input (beat_this,
`load_model`).
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch

from mtl_core.aggregate import Aggregation
from mtl_core.card import model_card
from mtl_core.failures import InputError
from mtl_core.features import FrontEnd
from mtl_core.labels import Vocabulary
from mtl_core.model import ModelConfig, MultitaskCNN
from mtl_core.storage import Location, at_the_door

FORMAT_VERSION = 1
WEIGHTS, MODEL, SPLITS, CARD = "weights.safetensors", "model.json", "splits.parquet", "README.md"


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
    digest = hashlib.sha256(_canonical(_what_tags(artifact)))
    for name, tensor in sorted(artifact.model.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save(artifact: Artifact, splits: pa.Table, location: Location) -> str:
    """Write the artifact's four files, replacing those that are there, and return its `model_id`.

    Args:
        artifact: what to keep.
        splits: track_id, split in train | validation | test.
        location: the folder.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.model.state_dict().items()}
    table = io.BytesIO()
    pq.write_table(splits.select(["track_id", "split"]), table)
    files = {WEIGHTS: safetensors.torch.save(state), SPLITS: table.getvalue()}
    identity = model_id(artifact)
    values = {
        "format_version": FORMAT_VERSION,
        "model_id": identity,
        **_what_tags(artifact),
        "fingerprint": artifact.fingerprint,
        "metrics": artifact.metrics,
        "recipe": artifact.recipe,
        "versions": artifact.versions,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    counts = {part.as_py(): splits["split"].to_pylist().count(part.as_py()) for part in splits["split"].unique()}
    files[CARD] = model_card(values, counts).encode()
    files[MODEL] = (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()  # last: it makes the folder a model
    for name, data in files.items():
        (location / name).write_bytes(data)
    return identity


def load(location: Location) -> Artifact:
    """The artifact in a folder, its model in eval mode on the CPU.

    Raises:
        InputError: a file is missing, damaged or of another save, or a field is missing or does not fit the rest.
    """
    values = _values(location)
    weights = _file(location, WEIGHTS, values)
    _file(location, SPLITS, values)
    try:
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
    except KeyError as error:
        raise _no_model(location, f"{MODEL} has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_model(location, f"{MODEL}: {error}") from None
    found = model_id(artifact)
    if found != values["model_id"]:
        raise _no_model(location, f"{MODEL} says model_id {values['model_id']!r}, its content is {found!r}")
    return artifact


def load_splits(location: Location) -> pa.Table:
    """The artifact's splits: track_id, split in train | validation | test.

    Raises:
        InputError: the file is missing, damaged or of another save.
    """
    data = _file(location, SPLITS, _values(location))
    return pq.read_table(io.BytesIO(data), columns=["track_id", "split"])


def _what_tags(artifact: Artifact) -> dict[str, Any]:
    """Everything beside the weights that can change a tag, as JSON values."""
    return {
        "front_end": artifact.front_end.to_dict(),
        "model": artifact.model.config.to_dict(),
        "vocabularies": {task: list(vocabulary.labels) for task, vocabulary in artifact.vocabularies.items()},
        "aggregation": artifact.aggregation.to_dict(),
    }


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _values(location: Location) -> dict[str, Any]:
    """What model.json says, its format and its keys checked."""
    try:
        values = json.loads(_read(location, MODEL))
    except ValueError as error:
        raise _no_model(location, f"{MODEL} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        found = values.get("format_version") if isinstance(values, dict) else None
        raise _no_model(location, f"{MODEL} has format version {found!r}, allowed is {FORMAT_VERSION}")
    for key, kind in _FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise _no_model(location, f"{MODEL} has no {key!r}" if key not in values else f"{MODEL}: wrong {key!r}")
    return values


_FIELDS = {
    **dict.fromkeys(
        ("front_end", "model", "vocabularies", "aggregation", "metrics", "recipe", "versions", "sha256"), dict
    ),
    **dict.fromkeys(("model_id", "fingerprint"), str),
}


def _file(location: Location, name: str, values: Mapping[str, Any]) -> bytes:
    data = _read(location, name)
    if hashlib.sha256(data).hexdigest() != values["sha256"].get(name):
        raise _no_model(
            location, f"{name} is not the file that {MODEL} describes (damaged, or a save that did not end)"
        )
    return data


def _read(location: Location, name: str) -> bytes:
    with at_the_door(location):
        try:
            return (location / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise _no_model(location, f"it has no file {name}") from None


def _model(config: ModelConfig, weights: bytes, location: Location) -> MultitaskCNN:
    try:
        state = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise _no_model(location, f"{WEIGHTS} cannot be read: {error}") from None
    random_state = torch.get_rng_state()
    model = MultitaskCNN(config)
    torch.set_rng_state(random_state)  # loading must not shift what the caller draws next
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise _no_model(location, f"{WEIGHTS}: {name} is {found.get(name)}, {MODEL} asks for {expected.get(name)}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise _no_model(location, f"{WEIGHTS} holds values that are not finite")
    model.load_state_dict(state)
    return model.eval()


def _no_model(location: Location, why: str) -> InputError:
    return InputError(f"{location} is no model: {' '.join(why.split())}")
