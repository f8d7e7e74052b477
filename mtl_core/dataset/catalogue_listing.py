"""List the audio files of a catalogue and join their labels: the content of a new manifest."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mtl_core.audio.source import AUDIO_EXTENSIONS, is_audio_file
from mtl_core.dataset.folder_labels import labels_from_paths
from mtl_core.dataset.label_file import LABEL_COLUMNS, read_label_file
from mtl_core.dataset.manifest import check_ids
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location, content_id


@dataclass(frozen=True, kw_only=True)
class CatalogueListing:
    """The tracks of a catalogue, and what could not be used."""

    #: The `MANIFEST` columns, then the carried columns as strings, sorted by track_id; an empty label is null.
    table: pa.Table
    labels_without_file: list[str]  # paths in the labels that are not in the catalogue, sorted
    labels_by_likeness: list[str]  # files that got the labels of a path that is written in another way, sorted
    unreadable_folders: list[str]  # on a disk; what lies below them is not in the table
    undecodable_names: list[str]  # names of files that are not UTF-8, as `repr` prints them
    outside_layout: list[str]  # paths whose folders give no labels, if labels come from folders


def list_catalogue(
    catalogue: Location, labels: Location | None, *, labels_from_folders: bool = False
) -> CatalogueListing:
    """List the tracks of a catalogue and join their labels.

    Args:
        catalogue: a folder or an S3 prefix; all files below it are listed.
        labels: a labels.csv (see `label_file`), or None for tracks without labels.
        labels_from_folders: take the labels from the folders of each file (see `folder_labels`) instead of `labels`.

    Raises:
        InputError: the catalogue does not exist or has no audio file, the labels are malformed, no folder gives a
            label, or a track_id occurs twice.
    """
    check_reachable(catalogue, reads=False)
    label_rows = {} if labels is None else read_label_file(labels)
    with as_input_error(catalogue):
        if not catalogue.on_s3 and not catalogue.exists():
            raise FileNotFoundError
        unreadable: set[str] = set()

        def leave_out(error: OSError) -> None:
            path = str(error.filename)
            if path == catalogue.path:
                raise error
            is_folder = os.path.isdir(path)  # noqa: PTH112 (that of Path raises the same error again)
            unreadable.add(path if is_folder else str(Path(path).parent))

        entries = list(catalogue.walk(on_error=leave_out))
    undecodable_names = [repr(path) for path, _ in entries if not _is_text(path)]
    files = {path: entry for path, entry in entries if _is_text(path)}
    outside_layout: list[str] = []
    if labels_from_folders:
        label_rows, outside_layout = labels_from_paths(filter(is_audio_file, files))
        if outside_layout and not label_rows:
            raise InputError(f"{catalogue}: no file lies in LANGUAGE/ARTIST/, e.g. {outside_layout[0]!r}")
    alike = (
        {} if labels_from_folders else match_alike(label_rows.keys() - files.keys(), files.keys() - label_rows.keys())
    )
    label_rows |= {path: label_rows.pop(named) for named, path in alike.items()}
    carried = [name for name in next(iter(label_rows.values()), {}) if name not in LABEL_COLUMNS]
    tracks = {path: entry for path, entry in files.items() if path in label_rows or is_audio_file(path)}
    if not tracks:
        extensions = ", ".join(sorted(AUDIO_EXTENSIONS))
        raise InputError(f"{catalogue}: no audio file below it (known extensions: {extensions})")
    rows = []
    for path, entry in tracks.items():
        row = label_rows.get(path, {})
        ids = {"track_id": row.get("track_id") or path, "uri": f"{catalogue.uri}/{path}"}
        rows.append({**row, **ids, "content_id": content_id(entry), "size_bytes": entry["size"]})
    schema = pa.schema([*MANIFEST, *(pa.field(name, pa.string()) for name in carried)])
    table = pa.Table.from_pylist(rows, schema=schema).sort_by("track_id")
    check_ids(table, catalogue)
    return CatalogueListing(
        table=table,
        labels_without_file=sorted(label_rows.keys() - tracks.keys()),
        labels_by_likeness=sorted(alike.values()),
        unreadable_folders=sorted(unreadable),
        undecodable_names=undecodable_names,
        outside_layout=outside_layout,
    )


def match_alike(named: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Path in the labels -> path of a file, where the two are the same but for how they are written.

    They are alike in Unicode's composed form, without spaces at the ends, and without `./`. Only pairs count of which
    each path has one partner: of two files that are alike, neither is the one that was meant.
    """
    by_form: dict[str, tuple[list[str], list[str]]] = {}
    for side, paths in enumerate((named, files)):
        for path in paths:
            form = unicodedata.normalize("NFC", path).strip().removeprefix("./")
            by_form.setdefault(form, ([], []))[side].append(path)
    return {left[0]: right[0] for left, right in by_form.values() if len(left) == len(right) == 1}


def _is_text(path: str) -> bool:
    """Whether a file name is valid UTF-8; Python holds the other bytes as lone surrogates."""
    return path.encode(errors="replace").decode() == path
