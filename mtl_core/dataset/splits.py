"""Splits: which tracks train, which validate, which test.

Tracks are held out in groups: all tracks of a group go to the same split. The kind of split decides what a group is:

- `paper`, `kfold`: one track (a song), or the tracks with one value of `group_column` if one is given (`song`, where
  recordings of one song share a name). By default there is no group column: with whole albums of 2 or 3 songs, "one of
  an artist's 5 songs" has no solution, and `paper` would be the same as `album`.
- `album`: the tracks with one value of the group column, by default `album`. A track without a value trains.
- `artist`: the tracks of one artist, for language only. If a group column is given, artists that share one of its
  values train.

A group always trains if one of its tracks has no artist or no language, or if it has several artists (a compilation). A
label column that is empty throughout is ignored, so that catalogues labelled for one task can be split too. A hash of
the seed and the names decides what is held out, so the order of the rows does not matter. In every kind but `artist`
each artist keeps at least one group to train on.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mtl_core.errors import InputError

KINDS = ("paper", "kfold", "album", "artist")
CROSSFIT, NONE = "crossfit", "none"  # all tracks train; the first has the folds of `crossfit.crossfit`
SPLIT_NAMES = ("train", "validation", "test")
SPLITS_SCHEMA = pa.schema([pa.field("track_id", pa.string(), False), pa.field("split", pa.string(), False)])


@dataclass(frozen=True)
class _Group:
    """Tracks of one artist that may be held out together."""

    name: str
    artist: str
    languages: tuple[str, ...]  # the most frequent first


def split(manifest: pa.Table, *, kind: str, seed: int, fold: int = 0, group_column: str | None = None) -> pa.Table:
    """Assign a split to every track.

    Args:
        manifest: one row a track: `track_id`, `artist`, `language` (both nullable), and the group column.
        kind: one of `KINDS`. `paper` and `album` hold out a fifth of the groups, half of it for validation, stratified
            by language and then by artist. `kfold` tests the `fold`-th group of each artist and validates on the next
            one; an artist with two groups has none to validate on, an artist with one group trains, and all folds
            together test each group of the other artists once. `artist` holds out whole artists: of each language a
            tenth (at least one) for test, then as many for validation, as long as each language keeps one to train on.
        seed: decides what is held out.
        fold: for `kfold` only: 0 to the largest number of groups of an artist, less 1.
        group_column: the column whose values make groups; by default that of the kind (see above).

    Returns:
        A table `SPLITS_SCHEMA`: each track_id of the manifest and its split, one of `SPLIT_NAMES`, sorted by track_id.

    Raises:
        InputError: there is no such kind, column or fold, a track_id occurs twice, or nothing can be held out.
    """
    if kind not in KINDS:
        raise InputError(f"no split {kind!r}: allowed are {', '.join(KINDS)}")
    track_ids = manifest["track_id"].to_pylist()
    n_repeated = len(track_ids) - len(set(track_ids))
    if n_repeated:
        raise InputError(f"{n_repeated} track_ids occur more than once: a split needs one row a track")
    column = group_column or ("album" if kind == "album" else None)
    artists, languages, groups = (column_values(manifest, name) for name in ("artist", "language", column))
    names = _group_names(kind, track_ids, artists, groups)
    if not any(names):
        required = "artist" if kind == "artist" else column
        raise InputError(f"the split {kind!r} has nothing to hold out: no track has a value of its own in {required!r}")
    candidates = _candidate_groups(names, artists, languages)
    if not candidates and (sharing := _artists_sharing_a_group(groups, artists)):
        raise InputError(
            f"the split {kind!r} has nothing to hold out: {len(sharing)} artists share values of {column!r}"
        )
    if kind == "kfold":
        held_out = _split_kfold(candidates, seed, fold)
    elif kind == "artist":
        held_out = _split_artists(candidates, seed)
    else:
        held_out = _split_80_10_10(candidates, seed)
    splits = {track_id: held_out.get(name or "", "train") for track_id, name in zip(track_ids, names, strict=True)}
    return pa.table([sorted(splits), [splits[track_id] for track_id in sorted(splits)]], schema=SPLITS_SCHEMA)


def check_arguments(kind: str, *, tasks: Collection[str], folds: Sequence[int], seeds: Sequence[int]) -> None:
    """Check the arguments of splits that models of `tasks` are trained on, before any data is read.

    Raises InputError where there is no such kind, a fold is of another kind than `kfold`, a seed is out of range, or
    the kind is `artist` and the model learns artists.
    """
    if kind not in (*KINDS, CROSSFIT, NONE):
        raise InputError(f"no split {kind!r}: allowed are {', '.join((CROSSFIT, NONE, *KINDS))}")
    if kind == "artist" and "artist" in tasks:
        raise InputError("the split 'artist' has no artist in both train and test: use --tasks language")
    for fold in folds:
        if fold and kind != "kfold":
            raise InputError(f"fold {fold} needs the split 'kfold', got {kind!r}")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {seed}")


def column_values(manifest: pa.Table, column: str | None) -> list[str | None]:
    """The values of a column; all None if `column` is None or a label column that the manifest does not have."""
    if column is None or (column in ("artist", "language") and column not in manifest.column_names):
        return [None] * len(manifest)
    if column not in manifest.column_names:
        allowed = [f.name for f in manifest.schema if pa.types.is_string(f.type) and f.name != "track_id"]
        raise InputError(f"no column {column!r} to group by: allowed are {', '.join(allowed)}")
    return manifest[column].to_pylist()


def _group_names(
    kind: str, track_ids: Sequence[str], artists: Sequence[str | None], groups: Sequence[str | None]
) -> list[str | None]:
    """The name of each track's group, or None if the track must train.

    The prefix keeps a track_id from being taken for a value of the group column.
    """
    if kind == "artist":
        sharing = _artists_sharing_a_group(groups, artists)
        return [None if artist is None or artist in sharing else f"artist {artist}" for artist in artists]
    single = [None if kind == "album" else f"track {track_id}" for track_id in track_ids]
    return [name if group is None else f"group {group}" for name, group in zip(single, groups, strict=True)]


def _artists_sharing_a_group(groups: Iterable[str | None], artists: Iterable[str | None]) -> set[str | None]:
    """The artists that have a value of the group column in common with another artist."""
    artists_of_group = defaultdict(set)
    for group, artist in zip(groups, artists, strict=True):
        artists_of_group[group].add(artist)
    return set().union(*(names for group, names in artists_of_group.items() if group is not None and len(names) > 1))


def _candidate_groups(
    names: Sequence[str | None], artists: Sequence[str | None], languages: Sequence[str | None]
) -> list[_Group]:
    """The groups that may be held out, sorted by name: all tracks are labelled and of one artist."""
    if not any(languages):
        languages = ["" for _ in names]
    if not any(artists):  # the groups are still stratified by language
        artists = languages
    labels = defaultdict(list)
    for name, artist, language in zip(names, artists, languages, strict=True):
        if name is not None:
            labels[name].append((artist, language))
    groups = []
    for name, pairs in sorted(labels.items()):
        artist, language_counts = pairs[0][0], Counter(sorted(str(language) for _, language in pairs))
        if all(a is not None and language is not None and a == artist for a, language in pairs):
            groups.append(_Group(name, str(artist), tuple(language for language, _ in language_counts.most_common())))
    return groups


def hash_order(names: Iterable[str], *salt: object) -> list[str]:
    """The names sorted by a hash of the salt and the name: an order that looks random."""
    return sorted(names, key=lambda name: (hashlib.sha256(repr((*salt, name)).encode()).digest(), name))


def _split_80_10_10(groups: Sequence[_Group], seed: int) -> dict[str, str]:
    """Hold out a fifth of the groups, for test and validation in turns.

    Within a language the artists come in hash order. An artist gives up a group wherever the running count of groups
    passes a multiple of five. So each artist gives the floor or ceiling of a fifth of its groups, and the language a
    fifth of its groups (rounded): one group each of 4 artists with 5. Artists with a single group are left out.
    Returns name of a group -> "test" or "validation".
    """
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        cells[group.languages[0]][group.artist].append(group.name)
    held_out: dict[str, str] = {}
    for language, names_of_artist in sorted(cells.items()):
        n_passed = 0
        for artist in hash_order((a for a, names in names_of_artist.items() if len(names) > 1), seed, language):
            names = names_of_artist[artist]
            n_held_out = _round_div(n_passed + len(names), 5) - _round_div(n_passed, 5)
            n_passed += len(names)
            for name in hash_order(names, seed)[:n_held_out]:  # at most a fifth, rounded up: one is left to train on
                held_out[name] = ("test", "validation")[len(held_out) % 2]
    return held_out


def _split_kfold(groups: Sequence[_Group], seed: int, fold: int) -> dict[str, str]:
    names_of_artist = defaultdict(list)
    for group in groups:
        names_of_artist[group.artist].append(group.name)
    n_folds = max((len(names) for names in names_of_artist.values() if len(names) > 1), default=0)
    if not 0 <= fold < n_folds:
        allowed = f"allowed are 0 to {n_folds - 1}" if n_folds else "no artist has two groups"
        raise InputError(f"no fold {fold}: {allowed}")
    held_out = {}
    for names in names_of_artist.values():
        if fold < len(names) > 1:
            ordered = hash_order(names, seed)
            held_out[ordered[fold]] = "test"
            if len(names) > 2:
                held_out[ordered[(fold + 1) % len(names)]] = "validation"
    return held_out


def _split_artists(artists: Sequence[_Group], seed: int) -> dict[str, str]:
    """Hold out a tenth of the artists of each language, at least one, while one is left to train on."""
    languages_of = {artist.name: artist.languages for artist in artists}
    n_training = Counter(language for artist in artists for language in artist.languages)
    quota = {language: max(1, _round_div(count, 10)) for language, count in n_training.items()}
    held_out: dict[str, str] = {}
    for split_name in ("test", "validation"):
        missing = Counter(quota)
        for language in sorted(quota):
            for name in hash_order((n for n in languages_of if language in languages_of[n]), seed):
                if missing[language] < 1:
                    break
                if name not in held_out and all(n_training[spoken] > 1 for spoken in languages_of[name]):
                    held_out[name] = split_name
                    n_training.subtract(languages_of[name])
                    missing.subtract(languages_of[name])
    return held_out


def _round_div(count: int, divisor: int) -> int:
    """count / divisor, rounded to the nearest integer."""
    return (2 * count + divisor) // (2 * divisor)
