"""GPU workers: the class that Ray Data runs on a worker with a GPU. It needs torch."""

import pickle

from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.torch_engine import TorchEngine
from mtl_core.pipelines.workers.shard_workers import ShardBatch, ShardTracks, TagWriter
from mtl_core.storage.work_plan import WorkPlan
from mtl_core.timing import StageTimer


class TagShard:
    """Tags all tracks of a shard that `ReadShard` has read, in one pass of the network on a torch device."""

    def __init__(self, plan: WorkPlan, artifact: Artifact, device: str) -> None:
        tagger = artifact.tagger(TorchEngine(artifact.model, device))
        self._writer = TagWriter(plan, tagger, StageTimer())

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (pickled,) = batch["item"]
        read: ShardTracks = pickle.loads(pickled)
        return self._writer.write(read.shard, self._writer.tag(read.tracks), read.times)
