"""Embeddings: those that the table of tags holds.

Legend: N tracks, E embedding (96).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from mtl_core.errors import InputError
from mtl_core.storage.location import Location
from mtl_core.storage.sql import scan_columns
from mtl_core.tables.delta import open_dataset, open_table


def read_embeddings(root: Location, track_ids: Sequence[str]) -> pa.Table:
    """`track_id`, `trunk_id` and `embedding` of the tracks that are in the table of tags under `root`.

    `embedding` is null for a track without sound, `trunk_id` for a row of version 0.1.

    Raises:
        InputError: there is no table of tags.
    """
    columns = ["track_id", "trunk_id", "embedding"]
    dataset = _open_tags(root)
    if "trunk_id" not in dataset.schema.names:
        raise InputError(f"{root / 'tags'} is of version 0.1: its rows do not say which trunk made their embeddings")
    wanted = pa.array(track_ids, dataset.schema.field("track_id").type)
    return dataset.to_table(columns=columns, filter=pyarrow.dataset.field("track_id").isin(wanted))


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The embeddings of one trunk."""

    trunk_id: str
    tracks: pa.Table  # (N) rows: track_id, artist (the tag), duration_s
    embedding_NE: np.ndarray  # float32
    n_without_sound: int  # rows without an embedding
    n_of_other_trunks: int  # rows whose embeddings cannot be compared with these


def read_newest_trunk(root: Location) -> Embeddings:
    """All embeddings of the trunk of the row that was tagged last.

    Raises:
        InputError: there is no table of tags, or it has no such row.
    """
    dataset = _open_tags(root)
    newest: tuple[datetime, str] | None = None
    if "trunk_id" in dataset.schema.names:
        for batch in scan_columns(dataset, ["trunk_id", "tagged_at"]):
            last = pa.table([batch["trunk_id"], batch["tagged_at"]], names=["trunk", "time"]).group_by("trunk")
            for row in last.aggregate([("time", "max")]).to_pylist():
                if row["trunk"] is not None and (newest is None or (row["time_max"], row["trunk"]) > newest):
                    newest = row["time_max"], row["trunk"]
    if newest is None:
        raise InputError(f"{root / 'tags'}: no row says which trunk made its embedding: tag the catalogue once more")
    tracks, embeddings, n_silent, n_others = [], [], 0, 0
    columns = ["track_id", "artist", "duration_s", "trunk_id", "embedding"]
    for batch in scan_columns(dataset, columns):
        rows = pa.Table.from_batches([batch])
        of_trunk = rows.filter(pc.equal(rows["trunk_id"], newest[1]).fill_null(False))
        sounding = of_trunk.filter(of_trunk["embedding"].is_valid())
        n_others += len(rows) - len(of_trunk)
        n_silent += len(of_trunk) - len(sounding)
        if len(sounding):
            values = sounding["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            embeddings.append(values.reshape(len(sounding), -1))
            tracks.append(sounding.select(columns[:3]))
    if not tracks:
        raise InputError(f"{root / 'tags'}: no row of the newest trunk has an embedding")
    return Embeddings(
        trunk_id=newest[1],
        tracks=pa.concat_tables(tracks).combine_chunks(),  # taking rows from many chunks takes ten times as long
        embedding_NE=np.concatenate(embeddings).astype(np.float32, copy=False),
        n_without_sound=n_silent,
        n_of_other_trunks=n_others,
    )


def _open_tags(root: Location) -> pyarrow.dataset.Dataset:
    table = open_table(root, "tags")
    if table is None:
        raise InputError(f"{root / 'tags'}: no table of tags is there")
    return open_dataset(root / "tags", table)
