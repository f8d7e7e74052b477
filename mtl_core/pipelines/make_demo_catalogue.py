"""Make the synthetic catalogue: plan the songs -> write `audio/…`, a Ray task for each song -> `labels.csv`."""

from dataclasses import dataclass, fields
from typing import Any

from mtl_core import log
from mtl_core.dataset.synthetic.catalogue import CatalogueConfig, Song, encode, labels_csv, pcm, plan_songs
from mtl_core.errors import InputError
from mtl_core.pipelines.workers import cluster
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location

CONFIG = "catalogue.json"
LABELS = "labels.csv"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was made: counts, seconds of audio, bytes of the audio files."""

    songs: int
    artists: int
    languages: int
    audio_s: float
    size_bytes: int


def make_demo_catalogue(config: CatalogueConfig, out: Location) -> Summary:
    """Write the catalogue of `config` to `out`; the samples and the labels depend on `config` alone.

    `out/catalogue.json` holds the config and marks the folder as this job's: an earlier catalogue is replaced.
    `labels.csv` is written last: if it is there, the catalogue is complete.

    Raises:
        InputError: `out` holds something else, or cannot be reached.
    """
    check_writable(out)
    with as_input_error(out):
        _clear(out)
        (out / CONFIG).write_json({field.name: getattr(config, field.name) for field in fields(CatalogueConfig)})
    songs = plan_songs(config)
    with cluster.connected():
        size_bytes = _write_songs(songs, out)
    (out / LABELS).write_bytes(labels_csv(songs))
    return Summary(
        songs=len(songs),
        artists=len({song.artist for song in songs}),
        languages=len({song.language for song in songs}),
        audio_s=sum(song.duration_s for song in songs),
        size_bytes=size_bytes,
    )


def _clear(out: Location) -> None:
    """Remove an earlier catalogue. The marker goes last, so that an interrupted removal can be repeated."""
    entries = out.filesystem.ls(out.path, detail=False) if out.exists() else []
    if entries and not (out / CONFIG).exists():
        raise InputError(f"{out} is not empty and is not a catalogue of this job (no {CONFIG}): name another folder")
    (out / LABELS).delete()
    (out / "audio").delete_tree()
    (out / CONFIG).delete()


def _write_songs(songs: list[Song], out: Location) -> int:
    import ray.data

    sizes = (
        ray.data.from_items(list(range(len(songs))), override_num_blocks=len(songs))
        .map(_write_song, fn_kwargs={"songs": songs, "out": out})
        .iter_rows()
    )
    size_bytes = 0
    for number, row in enumerate(sizes, start=1):
        size_bytes += row["size_bytes"]
        if number == len(songs) or number % max(1, len(songs) // 10) == 0:
            log.event("progress", f"{number} of {len(songs)} songs")
    return size_bytes


def _write_song(row: dict[str, Any], *, songs: list[Song], out: Location) -> dict[str, int]:
    song = songs[row["item"]]
    data = encode(pcm(song), song)
    (out / song.path).write_bytes(data)
    return {"size_bytes": len(data)}
