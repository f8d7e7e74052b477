"""mtl-core tag PATH… --model MODEL [--json]"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from mtl_core import cli
from mtl_core.audio.prefetch import Row
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.source import is_audio_file
from mtl_core.errors import InputError
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.inference.file_tagger import FileTagger
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location, content_id

_LABEL_WIDTH = 24
_COLUMNS = f"{{:{_LABEL_WIDTH}}} {{:>5}}  {{:{_LABEL_WIDTH}}} {{:>5}}  {{:>7}}  "


@dataclass(frozen=True, kw_only=True)
class Options(ExitOptions, ReadLimits):
    """Tag audio files and print their artists and languages. Exit status 3 when a file failed."""

    paths: Positional[tuple[str, ...]]
    """Files, folders (every audio file below them) and s3:// URIs."""
    model: str
    """Model artifact, as train writes it: a folder or s3:// prefix; or a model pointer, see promote."""
    json: bool = False
    """Print one JSON object a line: the columns of the tags, or stage, error and message."""

    def __post_init__(self) -> None:
        ReadLimits.__post_init__(self)
        ExitOptions.__post_init__(self)


def main(options: Options) -> int:
    with cli.flag_errors():
        model, locations = find_model(options.model), [Location(path) for path in options.paths]
    rows = [row for path, location in zip(options.paths, locations, strict=True) for row in _tracks(path, location)]
    if not rows:
        raise InputError(f"no audio file below {', '.join(options.paths) or 'no path: give files, folders or URIs'}")
    n_failed = 0
    with FileTagger(model.uri, limits=options, exit_options=options) as tagger:
        if not options.json:
            print(_COLUMNS.format("artist", "conf.", "language", "conf.", "length") + "file")
        for row in tagger.tag_rows(rows):
            n_failed += "stage" in row
            print(_json_line(row) if options.json else _table_line(row), flush=True)
    if n_failed:
        cli.end(cli.TOO_MANY_FAILED, f"done, but {n_failed} of {len(rows)} tracks failed")
    return cli.DONE


def _tracks(path: str, location: Location) -> Iterator[Row]:
    """The rows to tag for one path: a file, or the audio files below a folder. `track_id` is the path as given."""
    check_reachable(location)
    with as_input_error(location):
        try:
            entry = location.filesystem.info(location.path)
        except (FileNotFoundError, PermissionError):  # the row fails when it is read
            yield {"track_id": path, "uri": location.uri}
            return
        if entry["type"] != "directory":
            yield _row(path, location.uri, entry)
            return
        for below, entry in location.walk():
            if is_audio_file(below):
                yield _row(f"{path.rstrip('/')}/{below}", f"{location.uri}/{below}", entry)


def _row(track_id: str, uri: str, entry: Row) -> Row:
    return {"track_id": track_id, "uri": uri, "content_id": content_id(entry), "size_bytes": entry["size"]}


def _json_line(row: Row) -> str:
    values = dict(row)
    if "embedding" in values:
        embedding_E = values["embedding"]  # null without sound
        values |= {"embedding": None if embedding_E is None else embedding_E.tolist()}
        values |= {"tagged_at": values["tagged_at"].isoformat()}
    return json.dumps(values)


def _table_line(row: Row) -> str:
    file = row["track_id"].encode(errors="replace").decode()
    if "stage" in row:
        reason = f"failed: {row['stage']} {row['error']}"
        return f"{reason:{len(_COLUMNS.format('', '', '', '', ''))}}{file}: {row['message']}"
    cells = [cell for task in ("artist", "language") for cell in _cells(row[task], row[f"{task}_confidence"])]
    return _COLUMNS.format(*cells, f"{int(row['duration_s'] // 60)}:{int(row['duration_s'] % 60):02}") + file


def _cells(label: str | None, confidence: float | None) -> Sequence[str]:
    """Label and confidence; "-" for a task that the model does not predict."""
    if confidence is None:
        return "-", ""
    text = "unknown" if label is None else label
    return text if len(text) <= _LABEL_WIDTH else text[: _LABEL_WIDTH - 1] + "…", f"{confidence:.2f}"
