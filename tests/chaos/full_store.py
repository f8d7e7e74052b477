"""Fill the object store of the node of `RAY_ADDRESS`, keep it in use, and print the share that is held.

What a process maps can be neither spilled nor evicted. It ends when it is killed.
"""

import time

import numpy as np
import ray

OBJECT_BYTES = 4_000_000

if __name__ == "__main__":
    ray.init(logging_level="ERROR")
    capacity = ray.cluster_resources()["object_store_memory"]
    held = [ray.get(ray.put(np.zeros(OBJECT_BYTES, np.uint8))) for _ in range(int(capacity) // OBJECT_BYTES)]
    print(sum(array.nbytes for array in held) / capacity, flush=True)
    time.sleep(3600)
