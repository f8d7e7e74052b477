"""Embeddings: those that the table of tags holds of some tracks."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset

from mtl_core.errors import InputError
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_table


def read_embeddings(root: Location, track_ids: Sequence[str]) -> pa.Table:
    """`track_id`, `trunk_id` and `embedding` of the tracks that are in the table of tags under `root`.

    `embedding` is null for a track without sound, `trunk_id` for a row of version 0.1.

    Raises:
        InputError: there is no table of tags.
    """
    table = open_table(root, "tags")
    if table is None:
        raise InputError(f"{root / 'tags'}: no table of tags is there")
    columns = ["track_id", "trunk_id", "embedding"]
    dataset = table.to_pyarrow_dataset()
    if "trunk_id" not in dataset.schema.names:
        raise InputError(f"{root / 'tags'} is of version 0.1: its rows do not say which trunk made their embeddings")
    wanted = pa.array(track_ids, dataset.schema.field("track_id").type)
    return dataset.to_table(columns=columns, filter=pyarrow.dataset.field("track_id").isin(wanted))
