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

from mtl_core.audio.front_end import FrontEnd
from mtl_core.canonical import canonical_json
from mtl_core.errors import InputError, one_line
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location

FORMAT_VERSION = 2
WEIGHTS_FILE, NETWORK_GRAPH, NETWORK_WEIGHTS = "weights.safetensors", "network.xml", "network.bin"
FILTER_BANK_FILE = "filter_bank.npz"  # of the front end; artifacts of version 0.1 have none
MODEL_FILE, SPLITS_FILE, CARD_FILE = "model.json", "splits.parquet", "README.md"


def content_hash(what_tags: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> str:
    """The `model_id`: 16 hexadecimal digits of a SHA-256 over all that can change a tag.

    Args:
        what_tags: front end, model, vocabularies, aggregation and quantization, as JSON values.
        state: every weight and running statistic.
    """
    digest = hashlib.sha256(canonical_json(what_tags).encode())
    for name, array in sorted(state.items()):
        digest.update(f"\n{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def inference_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the content of model.json, what can change a tag."""
    names = ("front_end", "model", "vocabularies", "aggregation", "quantization")
    return {name: values[name] for name in names if name in values}


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


def read_front_end(location: Location, values: Mapping[str, Any]) -> FrontEnd:
    """The front end of a model, with its filter bank.

    Raises:
        InputError: model.json has no valid front end, or the file of the filter bank is missing or damaged.
    """
    data = read_file(location, FILTER_BANK_FILE, values) if FILTER_BANK_FILE in values["sha256"] else None
    with as_invalid_model(location):
        return FrontEnd.from_dict(values["front_end"], data)


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
    return InputError(f"{location} is no model: {one_line(why)}")


def _read(location: Location, name: str) -> bytes:
    with as_input_error(location):
        try:
            return (location / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise invalid_model(location, f"it has no file {name}") from None
