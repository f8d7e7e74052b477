"""The job that a user writes from Ray Data's documentation, on both cores: naive.py FOLDER OUT MODEL N_SEGMENTS"""

import sys

import numpy as np
import ray
from straightforward import Tagger


class Tag:
    def __init__(self, model: str, n_segments: int) -> None:
        self.tagger = Tagger(model, n_segments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tags = np.array([self.tagger.tag(data) for data in batch["bytes"]])
        return {"path": batch["path"], "artist": tags[:, 0], "language": tags[:, 1]}


if __name__ == "__main__":
    # 2 for the actors, 2 so that reads never wait
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    tracks = ray.data.read_binary_files(sys.argv[1], include_paths=True)
    tags = tracks.map_batches(
        Tag,
        fn_constructor_args=(sys.argv[3], int(sys.argv[4])),
        batch_size=4,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    tags.write_parquet(sys.argv[2])
