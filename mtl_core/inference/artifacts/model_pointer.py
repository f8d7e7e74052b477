"""Model pointer: a small JSON file that names the model in use. `--model` of every job takes it in place of a folder.

A pointer's URI ends with `.json`. It changes in one step, or not at all if another program changed it meanwhile, and
keeps its history. A job reads it once, when it starts.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from mtl_core.errors import InputError
from mtl_core.inference.artifacts.artifact_files import read_header
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location, VersionConflict

SUFFIX = ".json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that a pointer names or named."""

    model: str  # URI of the folder
    model_id: str
    at: str  # when the pointer was set to it, in UTC
    back: bool = False  # whether this took back the change before


def find_model(uri: str) -> Location:
    """The folder of a model: the URI itself, or what the pointer at the URI names.

    Raises:
        InputError: the pointer cannot be read.
        ValueError: the URI is not allowed.
    """
    location = Location(uri)
    if not location.path.endswith(SUFFIX):
        return location
    history, _ = _read(location)
    if not history:
        raise InputError(f"{location}: no model pointer is there: `promote` makes one")
    _check_is(history[-1], location)
    return Location(history[-1].model)


def promote(model: Location, pointer: Location) -> Entry:
    """Let the pointer name a model.

    Raises:
        InputError: the model is missing or damaged, the pointer cannot be read, or another program changed it.
    """
    history, version = _read(pointer)
    header = read_header(model)
    header.check_identity(header.read_weights())
    if history and (history[-1].model, history[-1].model_id) == (model.uri, header.model_id):
        return history[-1]  # a step that is repeated changes nothing, and `roll_back` goes behind both
    entry = Entry(model=model.uri, model_id=header.model_id, at=datetime.now(UTC).isoformat())
    return _append(entry, pointer, history, version)


def roll_back(pointer: Location) -> Entry:
    """Take back the last change that is not taken back yet: the pointer names the model before it.

    Raises:
        InputError: there is no model before, it is missing or damaged, or another program changed the pointer.
    """
    history, version = _read(pointer)
    in_use: list[Entry] = []
    for entry in history:
        if not entry.back:
            in_use.append(entry)
        elif in_use:
            in_use.pop()
    if len(in_use) < 2:
        raise InputError(f"{pointer}: there is no model before, so there is nothing to go back to")
    _check_is(in_use[-2], pointer)
    return _append(replace(in_use[-2], at=datetime.now(UTC).isoformat(), back=True), pointer, history, version)


def _check_is(entry: Entry, pointer: Location) -> None:
    """Raise InputError unless the model that lies there is the one that the pointer was set to."""
    found = read_header(Location(entry.model)).model_id
    if found != entry.model_id:
        raise InputError(
            f"{pointer}: {entry.model} was the model {entry.model_id} when it was promoted, and is {found} now: "
            "promote it, or another one"
        )


def _append(entry: Entry, pointer: Location, history: list[Entry], version: str | None) -> Entry:
    """Add an entry to the history, and write the pointer unless its version has changed."""
    values = {"model": entry.model, "model_id": entry.model_id, "history": [asdict(of) for of in [*history, entry]]}
    try:
        with as_input_error(pointer):
            pointer.compare_and_swap(json.dumps(values, indent=1).encode(), version)
    except VersionConflict:
        raise InputError(f"{pointer}: another program changed the pointer at the same time") from None
    return entry


def _read(pointer: Location) -> tuple[list[Entry], str | None]:
    """The history, oldest first, and the version of the file; nothing and None where there is no file."""
    if not pointer.path.endswith(SUFFIX):
        raise InputError(f"{pointer}: the URI of a model pointer must end with {SUFFIX}")
    with as_input_error(pointer):
        found = pointer.read_with_etag()
    if found is None:
        return [], None
    data, version = found
    try:
        return [Entry(**entry) for entry in json.loads(data)["history"]], version
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{pointer} is not a model pointer: {error}") from None
