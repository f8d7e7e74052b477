"""File tagger: audio files -> tags, in this process and on one CPU core. No Ray, no torch.

>>> with load_tagger("demo-run/model") as tagger:  # doctest: +SKIP
...     for row in tagger.tag(["song.mp3"]):
...         print(row["artist"], row["artist_confidence"])
"""

from collections.abc import Iterable, Iterator
from os import PathLike

from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.audio.prefetch import Row
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.track_reader import FailedTrack, TrackReader
from mtl_core.inference.artifacts.model_pointer import find_model
from mtl_core.inference.explanation import Explanation, explain
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.inference.tagging.early_exit import ExitOptions


class FileTagger:
    """Tags audio files. Owns a decoder process: close it, or use it as a context manager. Not for several threads.

    Args:
        model: path or s3:// URI of a model artifact.
        limits: what a track may be, and what reading it may cost.
        exit_options: how many segments of a track are decoded.
        decoder: module of the decoder process.

    Raises:
        InputError: the model is missing or damaged.
    """

    def __init__(
        self,
        model: str,
        *,
        limits: ReadLimits | None = None,
        exit_options: ExitOptions | None = None,
        decoder: str = DECODER,
    ) -> None:
        self._model = load_cpu_model(find_model(model))
        self.model_id = self._model.model_id
        self._tagger = self._model.tagger(exit_options)
        self._reader = TrackReader(self._model.front_end, limits, decoder=decoder, reads_first=self._tagger.reads_first)

    def tag(self, paths: Iterable[str | PathLike[str]]) -> list[Row]:
        """Tag audio files, local or s3://.

        Returns:
            One dict a path, in order: the columns of `schema.TAGS`, or, where a file cannot be tagged, track_id, uri,
            content_id, stage, error (of `errors.ERRORS`) and message. `track_id` and `uri` are the path as given.
        """
        return list(self.tag_rows([{"track_id": str(path), "uri": str(path)} for path in paths]))

    def tag_rows(self, rows: list[Row]) -> Iterator[Row]:
        """Tag the rows of a manifest, one by one; the next files are fetched meanwhile.

        A row has track_id and uri, optionally content_id and size_bytes. If it has `bytes`, the content of the file,
        the uri is not read. Yields one dict a row, in order, as `tag` returns.
        """
        tracks = self._reader.open(rows)
        for result in self._tagger.read_and_tag(tracks, self._reader.timer, model_id=self.model_id, run_id=None):
            yield failure_columns(result) if isinstance(result, FailedTrack) else result

    def explain(self, path: str | PathLike[str]) -> Explanation:
        """Why an audio file, local or s3://, has its tags. Raises TrackError where it cannot be tagged."""
        (track,) = self._reader.open([{"track_id": str(path), "uri": str(path)}])
        if isinstance(track, FailedTrack):
            raise track.error
        rounds = list(self._tagger.read_rounds(track, self._reader.timer))
        track.check_lost()
        model = self._model
        return explain(
            str(path), track.duration_s, track.n_segments, rounds, model.heads, model.vocabularies, model.aggregation
        )

    def close(self) -> None:
        """End the decoder process. A closed tagger cannot be used again."""
        self._reader.close()

    def __enter__(self) -> "FileTagger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_tagger(model: str | PathLike[str]) -> FileTagger:
    """The tagger of the model artifact at a path or s3:// URI. Raises InputError where it is missing or damaged."""
    return FileTagger(str(model))


def failure_columns(track: FailedTrack) -> Row:
    """track_id, uri, content_id, stage, error and message of a track that failed."""
    row = track.as_row(model_id=None, run_id="")
    return {name: row[name] for name in ("track_id", "uri", "content_id", "stage", "error", "message")}
