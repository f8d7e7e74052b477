"""Tag changes: how many tags of a night's table a new model would change, before any night is run with it.

Where the new model has the trunk of the rows, their tags follow from the table. Otherwise a sample of tracks is decoded
in this process.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from mtl_core.errors import InputError
from mtl_core.evaluation.comparison import count_changes
from mtl_core.inference.file_tagger import FileTagger
from mtl_core.inference.openvino_engine import CpuModel
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.embedding_tagger import EmbeddingTagger
from mtl_core.schema import TAGS
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_dataset, open_table

MAX_ROWS = 100_000  # that are tagged anew from the table, of files drawn at random


@dataclass(frozen=True, kw_only=True)
class TagChanges:
    """What a new model changes in the tags of the model in use."""

    source: str  # "embeddings" or "audio"
    n: int  # tracks that were compared
    left_out: int  # tracks whose tags do not follow from the table, or that cannot be decoded now
    tasks: dict[str, dict[str, int]]  # as `comparison.count_changes` returns them


def find_tag_changes(
    new: CpuModel, new_at: Location, old_id: str, out: Location, *, seed: int, decoded_tracks: int
) -> TagChanges:
    """Tag rows of a table with a new model, and count what changes.

    Args:
        new: the new model, and its folder `new_at`.
        old_id: `model_id` of the model in use; its rows count.
        out: folder of the tables.
        seed: of the sample.
        decoded_tracks: how many tracks are decoded where the new model has another trunk, 1 or more.

    Raises:
        InputError: there is no table, or it has no row of the model in use, or none that can be compared.
    """
    with as_input_error(out):
        rows = _sample(out, old_id, np.random.default_rng(seed))
    if not len(rows):
        raise InputError(f"{out}: the table of tags has no row of the model {old_id}, which is compared with")
    of_trunk = rows.filter(pc.equal(rows["trunk_id"], new.trunk_id))
    if len(of_trunk):
        source, rows = "embeddings", of_trunk
        tagger = EmbeddingTagger(new.front_end, new.heads, new.vocabularies, new.aggregation, ExitOptions())
        tagged, taken_N = tagger.tag(rows, model_id=new.model_id, run_id=None)
        before, after = rows.filter(pa.array(taken_N)), tagged.filter(pa.array(taken_N))
    else:
        source, rows = "audio", rows.slice(0, decoded_tracks)
        with FileTagger(str(new_at)) as file_tagger:
            found = list(file_tagger.tag_rows(rows.select(["track_id", "uri", "content_id"]).to_pylist()))
        is_tagged = pa.array(["error" not in row for row in found])
        before = rows.filter(is_tagged)
        after = pa.Table.from_pylist([row for row in found if "error" not in row], TAGS)
    if not len(before):
        raise InputError(f"{out}: none of {len(rows):,} rows of the model {old_id} can be tagged anew from {source}")
    return TagChanges(
        source=source,
        n=len(before),
        left_out=len(rows) - len(before),
        tasks={task: count_changes(before[task].to_pylist(), after[task].to_pylist()) for task in new.vocabularies},
    )


def _sample(out: Location, model_id: str, rng: np.random.Generator) -> pa.Table:
    """At most `MAX_ROWS` rows of a model, in random order."""
    table = open_table(out, "tags")
    if table is None:
        raise InputError(f"{out} has no table of tags")
    dataset: Any = open_dataset(out / "tags", table, TAGS)
    found, n_rows = [TAGS.empty_table()], 0
    fragments = list(dataset.get_fragments())
    for i in rng.permutation(len(fragments)):
        found.append(fragments[i].to_table(schema=TAGS, filter=pyarrow.dataset.field("model_id") == model_id))
        n_rows += len(found[-1])
        if n_rows >= MAX_ROWS:
            break
    rows = pa.concat_tables(found)
    return rows.take(pa.array(rng.permutation(len(rows))[:MAX_ROWS]))
