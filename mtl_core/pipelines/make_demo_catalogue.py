"""Make the synthetic catalogue: plan -> one song a Ray task -> `audio/…`, then `labels.csv`."""

import sys
from dataclasses import asdict, dataclass
from itertools import islice

import ray

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

    `out/catalogue.json` holds the config and marks the folder as this job's: one made earlier is replaced.
    `labels.csv` is written last: where it is, the catalogue is whole.

    Raises:
        InputError: `out` holds something else, or cannot be reached.
    """
    check_writable(out)
    with as_input_error(out):
        _clear(out)
        (out / CONFIG).write_json(asdict(config))
    tracks = plan_songs(config)
    with cluster.connected():
        size_bytes = _write_all(tracks, out)
    (out / LABELS).write_bytes(labels_csv(tracks))
    return Summary(
        songs=len(tracks),
        artists=len({track.artist for track in tracks}),
        languages=len({track.language for track in tracks}),
        audio_s=sum(track.duration_s for track in tracks),
        size_bytes=size_bytes,
    )


def _clear(out: Location) -> None:
    """Remove an earlier catalogue; the marker goes last, so that an interrupted removal can be taken up."""
    entries = out.filesystem.ls(out.path, detail=False) if out.exists() else []
    if entries and not (out / CONFIG).exists():
        raise InputError(f"{out} is not empty and holds no catalogue of this job (no {CONFIG}): name another folder")
    (out / LABELS).delete()
    (out / "audio").delete_tree()
    (out / CONFIG).delete()


def _write_all(tracks: list[Song], out: Location) -> int:
    write = ray.remote(num_cpus=1)(_write)
    waiting = iter(tracks)
    # One for each CPU: of tasks that wait, Ray says that they could never run.
    open_refs = [write.remote(track, out) for track in islice(waiting, cluster.require_workers(None))]
    done, size_bytes = 0, 0
    while open_refs:
        (ready,), open_refs = ray.wait(open_refs)
        open_refs += [write.remote(track, out) for track in islice(waiting, 1)]
        size_bytes += ray.get(ready)
        done += 1
        if done == len(tracks) or done % max(1, len(tracks) // 10) == 0:
            print(f"{done} of {len(tracks)} songs", file=sys.stderr, flush=True)
    return size_bytes


def _write(track: Song, out: Location) -> int:
    data = encode(pcm(track), track)
    (out / track.path).write_bytes(data)
    return len(data)
