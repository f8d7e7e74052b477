"""Segment grouping: rows of segments, in any order, become one array for each track."""

from collections.abc import Mapping, Sequence

import numpy as np


def group_by_track(
    tracks: Sequence[str | int] | np.ndarray,
    track_S: Sequence[str | int] | np.ndarray,
    values: Mapping[str, np.ndarray],
    segment_S: np.ndarray | None = None,
) -> dict[str, list[np.ndarray]]:
    """Split arrays of segments by track.

    Args:
        tracks: the tracks in the order of the result, each once; names or numbers.
        track_S: (S,) the track of each segment.
        values: name -> (S, …) values of the segments.
        segment_S: (S,) position of each segment in its track. None: the segments of a track keep their order.

    Returns:
        name -> for each track, its values (segments of the track, …).

    Raises:
        ValueError: a segment's track is not among `tracks`, or a track has no segment.
    """
    position = {track: i for i, track in enumerate(tracks)}
    try:
        index_S = np.array([position[track] for track in track_S], np.int64)
    except KeyError as error:
        raise ValueError(f"a segment is of track {error}, which is not among the tracks") from None
    counts = np.bincount(index_S, minlength=len(tracks))
    if not counts.all():
        raise ValueError(f"track {tracks[int(counts.argmin())]!r} has no segment")
    order = np.lexsort((index_S,) if segment_S is None else (segment_S, index_S))
    return {name: np.split(array[order], np.cumsum(counts)[:-1]) for name, array in values.items()}
