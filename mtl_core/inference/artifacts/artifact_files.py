"""Artifact files: what lies in a model's folder, and whether the files belong together.

    weights.safetensors   every parameter and running statistic (never a pickle), the same bytes for the same model
    model.onnx            the same network as CPU workers run it (`openvino_engine`), made from the weights;
                          artifacts of version 0.1 have network.xml and network.bin
    model.json            front end, model, vocabularies, aggregation; data fingerprint, recipe, metrics, versions
    filter_bank.npz       the weights of the front end's mel bands, as librosa made them
    splits.parquet        track_id, split: which tracks the model was trained, selected and tested on
    out_of_fold.parquet   `schema.OUT_OF_FOLD`: what the fold models of a cross-fitted model say of tracks new to them
    README.md             the model card

`model.json` is written last and holds the hashes of the other files. So a folder that mixes two saves, or whose save
was interrupted, is refused. Nothing here imports torch, which takes seconds: tagging on CPUs does without it.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mtl_core.audio.front_end import FrontEnd
from mtl_core.canonical import canonical_json
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head, is_of_head, read_heads
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location

FORMAT_VERSION = 2
WEIGHTS_FILE, NETWORK_FILE = "weights.safetensors", "model.onnx"
OLD_NETWORK_FILES = "network.xml", "network.bin"  # of version 0.1, in OpenVINO's own format
MODEL_FILE, SPLITS_FILE, CARD_FILE = "model.json", "splits.parquet", "README.md"
OUT_OF_FOLD_FILE = "out_of_fold.parquet"  # of a cross-fitted model
FILTER_BANK_FILE = "filter_bank.npz"  # of the front end; artifacts of version 0.1 have none

#: Fields of model.json that can change a tag.
_INFERENCE_FIELDS = ("front_end", "model", "vocabularies", "aggregation")
#: Fields of model.json -> their JSON type.
_FIELDS = {
    **dict.fromkeys((*_INFERENCE_FIELDS, "metrics", "recipe", "versions", "sha256"), dict),
    **dict.fromkeys(("model_id", "fingerprint"), str),
}


@dataclass(frozen=True, kw_only=True)
class ArtifactHeader:
    """The content of a model.json."""

    location: Location  # the model's folder
    values: dict[str, Any]  # all fields, as JSON values
    front_end: FrontEnd
    vocabularies: dict[str, Vocabulary]
    aggregation: Aggregation

    @property
    def model_id(self) -> str:
        return str(self.values["model_id"])

    def read_file(self, name: str) -> bytes:
        """One of the folder's other files; raises InputError unless it is the file that model.json describes."""
        return _read_checked(self.location, name, self.values)

    def read_weights(self) -> dict[str, np.ndarray]:
        """Every parameter and running statistic by name; raises InputError where they cannot be read."""
        data = self.read_file(WEIGHTS_FILE)
        try:
            return safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise invalid_model(self.location, f"{WEIGHTS_FILE} cannot be read: {error}") from None

    def read_heads(self, weights: Mapping[str, np.ndarray]) -> dict[str, Head]:
        """Task -> its head, out of the weights; raises InputError where they do not fit the vocabularies."""
        with as_invalid_model(self.location):
            heads = read_heads(weights, self.vocabularies)
            for task, head in heads.items():
                if head.n_classes != len(self.vocabularies[task]):
                    raise ValueError(
                        f"the head {task!r} has {head.n_classes} classes, not {len(self.vocabularies[task])}"
                    )
        return heads

    def check_identity(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raises InputError unless the content has the `model_id` that model.json states."""
        content_id = content_hash({name: self.values[name] for name in _INFERENCE_FIELDS}, weights)
        if content_id != self.model_id:
            raise invalid_model(
                self.location, f"{MODEL_FILE} says model_id {self.model_id!r}, its content is {content_id!r}"
            )


def read_header(location: Location) -> ArtifactHeader:
    """Read and check the model.json in a folder.

    Raises InputError where it is missing or of another format, or a field is missing or not allowed.
    """
    try:
        values = json.loads(_read(location, MODEL_FILE))
    except ValueError as error:
        raise invalid_model(location, f"{MODEL_FILE} is not JSON: {error}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise invalid_model(location, f"{MODEL_FILE} has format version {version!r}, allowed is {FORMAT_VERSION}")
    if "quantization" in values:
        raise invalid_model(
            location, f"{MODEL_FILE} has 8-bit weights, which only version 0.1 reads: use the model it was made from"
        )
    for key, json_type in _FIELDS.items():
        if key not in values:
            raise invalid_model(location, f"{MODEL_FILE} has no {key!r}")
        if not isinstance(values[key], json_type):
            raise invalid_model(location, f"{MODEL_FILE}: wrong {key!r}")
    data = _read_checked(location, FILTER_BANK_FILE, values) if FILTER_BANK_FILE in values["sha256"] else None
    with as_invalid_model(location):
        return ArtifactHeader(
            location=location,
            values=values,
            front_end=FrontEnd.from_dict(values["front_end"], data),
            vocabularies={task: Vocabulary(tuple(labels)) for task, labels in values["vocabularies"].items()},
            aggregation=Aggregation(**values["aggregation"]),
        )


def content_hash(fields: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """The `model_id`: a hash of front end, model, vocabularies and aggregation (as JSON values), and of the weights."""
    digest = hashlib.sha256(canonical_json(fields).encode())
    for name, array in sorted(weights.items()):
        digest.update(f"\n{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def trunk_hash(fields: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """A hash of what makes a segment's embedding: the front end, and the network less its heads. See `content_hash`."""
    model = {name: value for name, value in fields["model"].items() if name != "classes"}
    trunk = {name: array for name, array in weights.items() if not is_of_head(name)}
    return content_hash({"front_end": fields["front_end"], "model": model}, trunk)


@contextlib.contextmanager
def as_invalid_model(location: Location) -> Iterator[None]:
    """Turn the errors of parsing model.json's fields into an InputError that names the folder."""
    try:
        yield
    except KeyError as error:
        raise invalid_model(location, f"{MODEL_FILE} has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid_model(location, f"{MODEL_FILE}: {error}") from None


def invalid_model(location: Location, reason: str) -> InputError:
    """The error to raise for a folder that is not a model artifact."""
    return InputError(f"{location} is not a model artifact: {' '.join(reason.split())}")


def _read_checked(location: Location, name: str, values: Mapping[str, Any]) -> bytes:
    data = _read(location, name)
    if hashlib.sha256(data).hexdigest() != values["sha256"].get(name):
        raise invalid_model(
            location, f"{name} is not the file that {MODEL_FILE} describes (damaged, or an interrupted save)"
        )
    return data


def _read(location: Location, name: str) -> bytes:
    with as_input_error(location):
        try:
            return (location / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise invalid_model(location, f"it has no file {name}") from None
