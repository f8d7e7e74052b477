"""Tag tracks inside a Ray Data pipeline of your own: python examples/tag_in_own_pipeline.py MANIFEST MODEL OUT

MANIFEST is any Parquet file or folder with a column `uri` or `bytes`. OUT gets one row a track: its tags, or stage,
error and message.
"""

import sys

import ray

from mtl_core import TagTracks

manifest, model, out = sys.argv[1:]
(
    ray.data.read_parquet(manifest)
    .repartition(target_num_rows_per_block=8)  # a worker takes a block at a time: small ones keep all workers busy
    .map_batches(
        TagTracks,
        fn_constructor_kwargs={"model": model},
        batch_size=8,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=32),
    )
    .write_parquet(out, min_rows_per_file=10_000)
)
