"""Folders: labels out of where a song lies, for data sets that have them nowhere else.

    LANGUAGE_<language>/ARTIST_<artist>/<song>          the layout of Singh & Biswas' data set
    <language>/<artist>/<song>                          the same without the prefixes
    …/…/<album>/<song>                                  either, with a folder an album

The name is what follows the prefix, else the whole folder's, as it is: nothing in it is replaced. Where one folder of a
level has the prefix, those of that level without it are no labels. A path of any other depth has no labels at all.
"""

from collections.abc import Iterable

PREFIXES = {"language": "LANGUAGE_", "artist": "ARTIST_"}


def labels_from_paths(paths: Iterable[str]) -> tuple[dict[str, dict[str, str | None]], list[str]]:
    """Labels of songs by their paths.

    Args:
        paths: of songs, relative to the catalogue, `/` between folders.

    Returns:
        path -> {"language", "artist", "album"} of those that fit, and the paths that do not, in their order.
    """
    split = {path: path.split("/") for path in paths}
    prefixed = {
        task: any(len(parts) > level + 1 and parts[level].startswith(prefix) for parts in split.values())
        for level, (task, prefix) in enumerate(PREFIXES.items())
    }
    rows: dict[str, dict[str, str | None]] = {}
    misfits = []
    for path, parts in split.items():
        names = {
            task: _name(folder, PREFIXES[task] if prefixed[task] else "")
            for task, folder in zip(PREFIXES, parts, strict=False)
        }
        if len(parts) in (3, 4) and all(names.values()):
            rows[path] = {**names, "album": parts[2] if len(parts) == 4 else None}
        else:
            misfits.append(path)
    return rows, misfits


def _name(folder: str, prefix: str) -> str | None:
    """What follows the prefix, None where it is not there or nothing follows."""
    return folder.removeprefix(prefix).strip() or None if folder.startswith(prefix) else None
