"""Labels from the folders of a song, for data sets that have no other labels.

    LANGUAGE_<language>/ARTIST_<artist>/<song>          the layout of Singh & Biswas' data set
    <language>/<artist>/<song>                          the same without prefixes
    …/…/<album>/<song>                                  either of them, with a folder for each album

The label is the name of the folder without its prefix, unchanged. If one folder of a level has the prefix, folders of
that level without it are not labels. A path of any other depth has no labels.
"""

from collections.abc import Iterable

PREFIXES = {"language": "LANGUAGE_", "artist": "ARTIST_"}


def labels_from_paths(paths: Iterable[str]) -> tuple[dict[str, dict[str, str | None]], list[str]]:
    """Read the labels of songs from their paths, which are relative to the catalogue, with `/` between folders.

    Returns path -> {"language", "artist", "album"}, and the paths that do not have the layout, in their order.
    """
    parts_of = {path: path.split("/") for path in paths}
    prefixed = {
        task: any(len(parts) > level + 1 and parts[level].startswith(prefix) for parts in parts_of.values())
        for level, (task, prefix) in enumerate(PREFIXES.items())
    }
    rows: dict[str, dict[str, str | None]] = {}
    outside_layout = []
    for path, parts in parts_of.items():
        names = {
            task: _name(folder, PREFIXES[task] if prefixed[task] else "")
            for task, folder in zip(PREFIXES, parts, strict=False)
        }
        if len(parts) in (3, 4) and all(names.values()):
            rows[path] = {**names, "album": parts[2] if len(parts) == 4 else None}
        else:
            outside_layout.append(path)
    return rows, outside_layout


def _name(folder: str, prefix: str) -> str | None:
    """The part after the prefix; None if the prefix is missing or nothing follows it."""
    return folder.removeprefix(prefix).strip() or None if folder.startswith(prefix) else None
