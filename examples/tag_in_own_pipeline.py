"""Tag tracks inside a Ray Data pipeline of your own: python examples/tag_in_own_pipeline.py MANIFEST MODEL OUT

MANIFEST is any Parquet file or folder with a column `uri` or `bytes`. OUT gets one row a track: its tags, or stage,
error and message.
"""

import sys

import ray

from mtl_core import TagTracks

manifest, model, out = sys.argv[1:]
ray.init(ignore_reinit_error=True)
workers = int(ray.cluster_resources()["CPU"])  # one tags on each core
(
    ray.data.read_parquet(manifest)
    .repartition(target_num_rows_per_block=8)  # a worker takes a block at a time: small ones keep all workers busy
    .map_batches(
        TagTracks,
        fn_constructor_kwargs={"model": model},
        batch_size=8,
        num_cpus=0.5,  # Ray Data needs the other half: its own tasks read, split and write
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    .write_parquet(out, min_rows_per_file=10_000)
)
