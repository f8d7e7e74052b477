"""Lease conflicts: commands that another run refused, because it held the lease (exit status 4).

A refused command starts no Ray, so nothing can scrape it. It leaves a file, OUT/runs/_conflict-TIME-ID.json. The run
that holds the lease counts these files. If another command holds it, the next run counts them. The files are empty
objects of JSON, and nothing here changes the lease.
"""

import contextlib
from collections.abc import Iterable, Iterator

from mtl_core import log
from mtl_core.errors import InputError, OtherRunError
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location
from mtl_core.storage.run_id import new_run_id

_PREFIX = "_conflict-"


@contextlib.contextmanager
def noted(folder: Location) -> Iterator[None]:
    """Note it in `folder` where the body raises OtherRunError. A file that cannot be written is a warning."""
    try:
        yield
    except OtherRunError:
        file = folder / f"{_PREFIX}{new_run_id()}.json"
        try:
            with as_input_error(file):
                file.write_json({})
        except InputError as error:
            log.warning(f"no metric will show this: {error}")
        raise


def find(folder: Location) -> set[str]:
    """The names of the conflicts that no finished run has counted."""
    return {name for name in folder.names() if name.startswith(_PREFIX)}


def delete(folder: Location, names: Iterable[str]) -> None:
    """Delete conflicts that a record counts."""
    for name in names:
        (folder / name).delete()
