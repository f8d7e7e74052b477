"""The functions of straightforward.py in Daft's native runner, on both cores: in_daft.py FOLDER OUT MODEL N_SEGMENTS"""

import sys

import daft
from daft import DataType, col
from straightforward import Tagger


@daft.cls(max_concurrency=2, use_process=True)
class Tag:
    def __init__(self, model: str, n_segments: int) -> None:
        self.tagger = Tagger(model, n_segments)

    @daft.method(return_dtype=DataType.struct({"artist": DataType.int64(), "language": DataType.int64()}))
    def tag(self, data: bytes) -> dict[str, int]:
        artist, language = self.tagger.tag(data)
        return {"artist": artist, "language": language}


if __name__ == "__main__":
    files = daft.from_glob_path(sys.argv[1] + "/*").into_batches(4)
    tagged = files.with_column("tags", Tag(sys.argv[3], int(sys.argv[4])).tag(col("path").download()))
    tagged.select("path", "tags").write_parquet(sys.argv[2])
