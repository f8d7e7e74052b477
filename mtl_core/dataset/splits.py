"""Splits: which tracks train, which validate, which test.

A unit is what is never straddled: all its tracks go to one part. By kind it is

- `paper`, `kfold`: the track (a song), or the value of `group_column` where one is named (`song`, where recordings of
  one song share a name). The default is no group: with albums of 2 or 3 songs held whole, "one of an artist's 5 songs"
  has no solution, and `paper` would be `album`.
- `album`: the value of the group column, `album` by default. A track without one trains.
- `artist`: the artist, for language only. Where a group column is named, artists that share a value of it train.

A unit trains, never to be held out, where a track in it has no artist or no language, or where it is shared by several
artists (a compilation). A label column that is empty throughout is left out of this, so that catalogues labelled for
one task split too. What is held out is drawn by a hash of (seed, names), whatever the order of the rows; in every kind
but `artist` every artist keeps at least one unit to train on.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mtl_core.errors import InputError

KINDS = ("paper", "kfold", "album", "artist")
SPLIT_NAMES = ("train", "validation", "test")
SPLITS_SCHEMA = pa.schema([pa.field("track_id", pa.string(), False), pa.field("split", pa.string(), False)])


@dataclass(frozen=True)
class _Unit:
    """Tracks that can be held out together: of one artist, in these languages, the most frequent first."""

    name: str
    artist: str
    languages: tuple[str, ...]


def split(manifest: pa.Table, *, kind: str, seed: int, fold: int = 0, group_column: str | None = None) -> pa.Table:
    """Give every track its part.

    Args:
        manifest: a row a track: `track_id`, `artist`, `language` (both nullable), and the group column.
        kind: one of `KINDS`. `paper` and `album` hold out a fifth of the units, half of it for validation, stratified
            by language and within it by artist. `kfold` tests the `fold`-th unit of each artist and validates on the
            next; an artist of two units has none to validate on, one of a single unit trains, and the folds together
            test every unit of the others once. `artist` holds out whole artists, per language a tenth (at least one) to
            test, then as many to validation, as long as every language keeps one to train on.
        seed: another seed, another draw.
        fold: 0 to the largest number of units of an artist, less 1; for `kfold` alone.
        group_column: the column that is never straddled, else the kind's own (above).

    Returns:
        `SPLITS`: track_id, split (one of `PARTS`); every track of the manifest once, sorted by track_id.

    Raises:
        InputError: no such kind, column or fold; doubled track_ids; nothing that could ever be held out that way.
    """
    if kind not in KINDS:
        raise InputError(f"no split {kind!r}: allowed are {', '.join(KINDS)}")
    track_ids = manifest["track_id"].to_pylist()
    if len(set(track_ids)) != len(track_ids):
        raise InputError(f"{len(track_ids) - len(set(track_ids))} track_ids are doubled: a split needs one row a track")
    column = group_column or ("album" if kind == "album" else None)
    artists, languages, groups = (_values(manifest, name) for name in ("artist", "language", column))
    names = _unit_names(kind, track_ids, artists, groups)
    if not any(names):
        needed = "artist" if kind == "artist" else column
        raise InputError(f"the split {kind!r} has nothing to hold out: no track has a value of its own in {needed!r}")
    units = _units(names, artists, languages)
    if not units and (sharing := _sharing(groups, artists)):
        raise InputError(
            f"the split {kind!r} has nothing to hold out: {len(sharing)} artists share values of {column!r}"
        )
    if kind == "kfold":
        held = _kfold(units, seed, fold)
    else:
        held = _artists(units, seed) if kind == "artist" else _fifth(units, seed)
    parts = {track_id: held.get(name or "", "train") for track_id, name in zip(track_ids, names, strict=True)}
    return pa.table([sorted(parts), [parts[track_id] for track_id in sorted(parts)]], schema=SPLITS_SCHEMA)


def check_arguments(kind: str, *, tasks: Collection[str], folds: Sequence[int], seeds: Sequence[int]) -> None:
    """Check the arguments of splits that models of `tasks` are trained on, before any data is read.

    Raises:
        InputError: no such kind, a fold of another kind than `kfold`, a seed out of range, or the kind `artist` for a
            model that learns artists.
    """
    if kind not in KINDS:
        raise InputError(f"no split {kind!r}: allowed are {', '.join(KINDS)}")
    if kind == "artist" and "artist" in tasks:
        raise InputError("the split 'artist' has no artist in both train and test: use --tasks language")
    for fold in folds:
        if fold and kind != "kfold":
            raise InputError(f"fold {fold} needs the split 'kfold', got {kind!r}")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {seed}")


def _values(manifest: pa.Table, column: str | None) -> list[str | None]:
    """A column; all None where it is not asked for, or is a label column that is not there."""
    if column is None or (column in ("artist", "language") and column not in manifest.column_names):
        return [None] * len(manifest)
    if column not in manifest.column_names:
        allowed = [f.name for f in manifest.schema if pa.types.is_string(f.type) and f.name != "track_id"]
        raise InputError(f"no column {column!r} to group by: allowed are {', '.join(allowed)}")
    return manifest[column].to_pylist()


def _unit_names(
    kind: str, track_ids: Sequence[str], artists: Sequence[str | None], groups: Sequence[str | None]
) -> list[str | None]:
    """The unit of every track, prefixed so that a track_id is never taken for a group; None where it has to train."""
    if kind == "artist":
        sharing = _sharing(groups, artists)
        return [None if artist is None or artist in sharing else f"artist {artist}" for artist in artists]
    alone = [None if kind == "album" else f"track {track_id}" for track_id in track_ids]
    return [name if group is None else f"group {group}" for name, group in zip(alone, groups, strict=True)]


def _sharing(groups: Iterable[str | None], artists: Iterable[str | None]) -> set[str | None]:
    """The artists that have a group in common with another."""
    of_group = defaultdict(set)
    for group, artist in zip(groups, artists, strict=True):
        of_group[group].add(artist)
    return set().union(*(found for group, found in of_group.items() if group is not None and len(found) > 1))


def _units(names: Sequence[str | None], artists: Sequence[str | None], languages: Sequence[str | None]) -> list[_Unit]:
    """The units that may be held out: labelled throughout and of one artist; sorted by name."""
    if not any(languages):
        languages = ["" for _ in names]
    if not any(artists):  # units are still drawn by language
        artists = languages
    labels = defaultdict(list)
    for name, artist, language in zip(names, artists, languages, strict=True):
        if name is not None:
            labels[name].append((artist, language))
    units = []
    for name, pairs in sorted(labels.items()):
        artist, language_counts = pairs[0][0], Counter(sorted(str(language) for _, language in pairs))
        if all(a is not None and language is not None and a == artist for a, language in pairs):
            units.append(_Unit(name, str(artist), tuple(language for language, _ in language_counts.most_common())))
    return units


def _drawn(names: Iterable[str], *salt: object) -> list[str]:
    """The names in an order that depends on the salt and on each name alone."""
    return sorted(names, key=lambda name: (hashlib.sha256(repr((*salt, name)).encode()).digest(), name))


def _fifth(units: Sequence[_Unit], seed: int) -> dict[str, str]:
    """A fifth of the units, to test and validation in turns.

    Within a language the artists stand in a drawn order and give up a unit wherever the running count of units passes a
    whole fifth: the floor or ceiling of a fifth of their own, a fifth of the language together (rounded), so one each
    of 4 artists with 5. An artist with one unit stands apart.
    """
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for unit in units:
        cells[unit.languages[0]][unit.artist].append(unit.name)
    held: dict[str, str] = {}
    for language, of_artist in sorted(cells.items()):
        passed = 0
        for artist in _drawn((a for a, names in of_artist.items() if len(names) > 1), seed, language):
            names = of_artist[artist]
            n_held = _rounded(passed + len(names), 5) - _rounded(passed, 5)
            passed += len(names)
            for name in _drawn(names, seed)[:n_held]:  # fewer than there are: the ceiling of a fifth
                held[name] = ("test", "validation")[len(held) % 2]
    return held


def _kfold(units: Sequence[_Unit], seed: int, fold: int) -> dict[str, str]:
    of_artist = defaultdict(list)
    for unit in units:
        of_artist[unit.artist].append(unit.name)
    folds = max((len(names) for names in of_artist.values() if len(names) > 1), default=0)
    if not 0 <= fold < folds:
        raise InputError(
            f"no fold {fold}: " + (f"allowed are 0 to {folds - 1}" if folds else "no artist has two units")
        )
    held = {}
    for names in of_artist.values():
        if fold < len(names) > 1:
            ordered = _drawn(names, seed)
            held[ordered[fold]] = "test"
            if len(names) > 2:
                held[ordered[(fold + 1) % len(names)]] = "validation"
    return held


def _artists(units: Sequence[_Unit], seed: int) -> dict[str, str]:
    """A tenth of each language's artists, at least one, to test, then to validation, while one is left to train on."""
    languages_of = {unit.name: unit.languages for unit in units}
    training = Counter(language for unit in units for language in unit.languages)
    wanted = {language: max(1, _rounded(count, 10)) for language, count in training.items()}
    held: dict[str, str] = {}
    for part in ("test", "validation"):
        missing = Counter(wanted)
        for language in sorted(wanted):
            for name in _drawn((n for n in languages_of if language in languages_of[n]), seed):
                if missing[language] < 1:
                    break
                if name not in held and all(training[spoken] > 1 for spoken in languages_of[name]):
                    held[name] = part
                    training.subtract(languages_of[name])
                    missing.subtract(languages_of[name])
    return held


def _rounded(count: int, share: int) -> int:
    """count / share to the nearest whole number."""
    return (2 * count + share) // (2 * share)
