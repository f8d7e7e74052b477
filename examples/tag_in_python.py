"""Tag files in plain Python: python examples/tag_in_python.py MODEL FILE…"""

import sys

from mtl_core import load_tagger

model, *paths = sys.argv[1:]
with load_tagger(model) as tagger:
    for row in tagger.tag(paths):
        if "stage" in row:
            print(f"{row['uri']}: {row['stage']} {row['error']}: {row['message']}")
        else:
            print(f"{row['uri']}: {row['artist']} ({row['artist_confidence']:.2f}), {row['language']}")
