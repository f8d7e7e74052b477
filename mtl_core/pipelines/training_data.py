"""Training data: the segments of a part as a stream, in an order that (seed, epoch) alone decide.

Shuffling is in three steps: the files are read in an order drawn anew each epoch, their blocks are dealt to the workers
in turn, and each worker draws its batches at random out of a buffer of `shuffle_segments` (4,096 segments are some 100
tracks), so that a batch mixes songs. The order is kept through the stream and every draw is seeded: the same seed,
files and workers give the same batches, whether or not a run was interrupted in between.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, Dataset, FileShuffleConfig

from mtl_core.labels import MISSING, Vocabulary
from mtl_core.mels import Mels
from mtl_core.pipelines import cluster
from mtl_core.pipelines.checkpoints import Start, epochs_done
from mtl_core.storage import Location


@dataclass(frozen=True, kw_only=True)
class TrainingStream:
    """The training part; Ray Train calls this where it starts workers, again after each failure.

    Ray Data counts a stream's epochs from 0 each time that workers start, and draws an epoch's order of files by that
    count: it is told here how many epochs were trained before.

    Args:
        data: of `segments`, made by the driver: that takes a task of a whole CPU, which a small cluster has no more
            when the workers have theirs.
        run: where Ray Train keeps the run's checkpoints.
        start: where it starts without a list of them.
    """

    data: Dataset
    run: Location
    start: Start

    def __call__(self) -> Dataset:
        cluster.be_quiet()
        self.data.context._execution_idx = epochs_done(self.run, self.start)
        return self.data


def segments(
    source: Mels,
    track_ids: pa.ChunkedArray,
    vocabularies: dict[str, Vocabulary],
    shuffle_seed: int | None,
    task_cpus: float,
) -> Dataset:
    """Segments of tracks: `mel` float16 (187, 96), `track` int64 (its place in `track_ids`), an int64 a task."""
    track_ids = track_ids.combine_chunks()
    labels = {task: pa.array(vocabulary.labels, pa.string()) for task, vocabulary in vocabularies.items()}

    def encode(table: pa.Table) -> pa.Table:
        track = pc.index_in(table["track_id"], value_set=track_ids)
        kept = table.append_column("track", track).filter(pc.is_valid(track))
        targets = [pc.fill_null(pc.index_in(kept[task], value_set=labels[task]), MISSING) for task in labels]
        columns = [kept["mel"], kept["track"].cast(pa.int64()), *(target.cast(pa.int64()) for target in targets)]
        return pa.table(columns, names=["mel", "track", *labels])

    DataContext.get_current().use_datasource_v2 = False  # it reads many small files as one block
    return ray.data.read_parquet(
        [file.path for file in source.files],
        filesystem=source.files[0].arrow_filesystem,
        columns=["track_id", *vocabularies, "mel"],
        shuffle=None if shuffle_seed is None else FileShuffleConfig(seed=shuffle_seed),
        num_cpus=task_cpus,
    ).map_batches(encode, batch_format="pyarrow", batch_size=None, zero_copy_batch=True, num_cpus=task_cpus)
