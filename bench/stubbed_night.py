"""Run tag_catalogue with stub_decoder.py, for bench_memory.py: python bench/stubbed_night.py MANIFEST MODEL OUT

Prints the number of tagged tracks of each run.
"""

import sys

import pyarrow as pa

from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.storage.location import Location

if __name__ == "__main__":
    pa.set_memory_pool(pa.system_memory_pool())  # as the job does
    tagged = tag_catalogue(*map(Location, sys.argv[1:4]), TaggingOptions(), decoder="stub_decoder")
    print([run["tagged"] for run in tagged.runs])
