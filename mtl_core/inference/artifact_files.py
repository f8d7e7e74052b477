"""Model folder: the files of an artifact, and whether they belong together.

`model.json` is written last and carries the hashes of the others: a folder in which two saves mix, or one was not
finished, is no model. Nothing here needs torch: a tagging job that runs on CPUs never imports it (it costs seconds).

Contents: the files' names, `identity` (the `model_id`), `read_values`, `read_file`, `fields_of`, `check_identity`,
`no_model`.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtl_core.errors import InputError
from mtl_core.storage.location import Location, as_input_error

FORMAT_VERSION = 2
WEIGHTS_FILE, NETWORK_GRAPH, NETWORK_WEIGHTS = "weights.safetensors", "network.xml", "network.bin"
MODEL_FILE, SPLITS_FILE, CARD_FILE = "model.json", "splits.parquet", "README.md"


def content_hash(what_tags: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> str:
    """The `model_id`: 16 hexadecimal digits of a SHA-256 over all that can change a tag.

    Args:
        what_tags: front end, model, vocabularies and aggregation, as JSON values.
        state: every weight and running statistic.
    """
    canonical = json.dumps(what_tags, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode())
    for name, array in sorted(state.items()):
        digest.update(f"\n{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def inference_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the content of model.json, what can change a tag."""
    return {name: values[name] for name in ("front_end", "model", "vocabularies", "aggregation")}


def read_values(location: Location) -> dict[str, Any]:
    """What model.json says, its format and its keys checked.

    Raises:
        InputError: it is missing, or is not that of a model.
    """
    try:
        values = json.loads(_read(location, MODEL_FILE))
    except ValueError as error:
        raise invalid_model(location, f"{MODEL_FILE} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        found = values.get("format_version") if isinstance(values, dict) else None
        raise invalid_model(location, f"{MODEL_FILE} has format version {found!r}, allowed is {FORMAT_VERSION}")
    if "quantization" in values:
        raise invalid_model(
            location,
            f"{MODEL_FILE} has 8-bit weights, which only version 0.1 reads: use the model it was made from",
        )
    for key, kind in _FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise invalid_model(
                location, f"{MODEL_FILE} has no {key!r}" if key not in values else f"{MODEL_FILE}: wrong {key!r}"
            )
    return values


_FIELDS = {
    **dict.fromkeys(
        ("front_end", "model", "vocabularies", "aggregation", "metrics", "recipe", "versions", "sha256"), dict
    ),
    **dict.fromkeys(("model_id", "fingerprint"), str),
}


def read_file(location: Location, name: str, values: Mapping[str, Any]) -> bytes:
    """One of the other files; raises InputError where it is not the one that model.json describes."""
    data = _read(location, name)
    if hashlib.sha256(data).hexdigest() != values["sha256"].get(name):
        raise invalid_model(
            location, f"{name} is not the file that {MODEL_FILE} describes (damaged, or a save that did not end)"
        )
    return data


@contextlib.contextmanager
def as_invalid_model(location: Location) -> Iterator[None]:
    """Where the fields of model.json become what they stand for: one that is missing or does not fit is no model."""
    try:
        yield
    except KeyError as error:
        raise invalid_model(location, f"{MODEL_FILE} has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid_model(location, f"{MODEL_FILE}: {error}") from None


def check_identity(location: Location, values: Mapping[str, Any], found: str) -> None:
    """Raises InputError where the content's `model_id` is not the one that model.json claims."""
    if found != values["model_id"]:
        raise invalid_model(location, f"{MODEL_FILE} says model_id {values['model_id']!r}, its content is {found!r}")


def invalid_model(location: Location, why: str) -> InputError:
    """The error of a folder that is no model, to be raised."""
    return InputError(f"{location} is no model: {' '.join(why.split())}")


def _read(location: Location, name: str) -> bytes:
    with as_input_error(location):
        try:
            return (location / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise invalid_model(location, f"it has no file {name}") from None
