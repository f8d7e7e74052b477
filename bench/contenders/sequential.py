"""The functions of straightforward.py in a loop, one process, one thread: sequential.py FOLDER OUT MODEL N_SEGMENTS"""

import sys
from pathlib import Path

import pandas as pd
from straightforward import Tagger

if __name__ == "__main__":
    tagger = Tagger(sys.argv[3], int(sys.argv[4]))
    rows = [(str(path), *tagger.tag(path.read_bytes())) for path in sorted(Path(sys.argv[1]).iterdir())]
    pd.DataFrame(rows, columns=["path", "artist", "language"]).to_parquet(sys.argv[2])
