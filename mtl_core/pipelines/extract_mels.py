"""Extract mels: every track of a manifest -> its segments' mels in Parquet, for training and evaluation.

A run is named by what it is made from: the same command takes up an unfinished run, and recognises a finished one.
Files go into OUT under the run's name; those of an earlier run go when this one has ended. Failures are at
`OUT/_failures`.
"""

import hashlib
import io
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from mtl_core.audio.decoder_process import DecoderLimits
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.track_reader import FailedTrack, Track, TrackReader
from mtl_core.canonical import run_sha256
from mtl_core.dataset import manifest, mel_files
from mtl_core.errors import InputError
from mtl_core.pipelines.workers import cluster
from mtl_core.pipelines.workers.shard_pool import Stage, run_shards
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.work_plan import ShardResult, WorkPlan

FAILURES_FOLDER = "_failures"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What an extraction is made with.

    Args:
        front_end: of the mels.
        draws: random starts a segment slot instead of the fixed grid, 1 to 100; 0 is the fixed grid.
        seed: of the draws.
        limits: of the decoder, for one track.
        workers: actors; None: one for each CPU of the cluster.

    Raises:
        ValueError: a number is out of range.
    """

    front_end: FrontEnd = field(default_factory=FrontEnd)
    draws: int = 0
    seed: int = 0
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.draws <= 100:
            raise ValueError(f"draws must be 0 (the fixed grid) to 100, got {self.draws}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be 1 or more, got {self.workers}")


def extract_mels(manifest_at: Location, out: Location, extraction: Extraction) -> str:
    """Extract the mels of all tracks of a manifest.

    Returns:
        A summary for people.

    Raises:
        InputError: the manifest is wrong or OUT cannot be reached.
    """
    tracks = manifest.read(manifest_at)
    check_writable(out)
    if not len(tracks):
        raise InputError(f"{manifest_at}: a manifest without tracks")
    tracks = tracks.sort_by("track_id")
    asked = _asked(tracks, extraction)
    run_id = run_sha256(asked)[:12]
    record = out / mel_files.RUNS_FOLDER / f"{run_id}.json"
    if _is_done(record, out):
        return f"nothing to do: {out} holds the mels of this manifest\n{_summary(json.loads(record.read_bytes()), out)}"
    with lease.acquire(out), cluster.connected(num_cpus=extraction.workers):
        workers = cluster.require_workers(extraction.workers)
        plan = _plan(tracks, out, run_id, asked, workers)
        begun = time.monotonic()
        make = partial(_Extractor, plan, out, extraction, mel_files.mels_schema(extraction.front_end, tracks.schema))
        stage = Stage(make=make, workers=workers, resources={"num_cpus": 1}, calls=work_plan.SHARDS_PER_WORKER)
        run_shards(plan, [stage], what="extracting mels")
        return _summary(_finish(plan, out, record, time.monotonic() - begun), out)


def _asked(tracks: pa.Table, extraction: Extraction) -> dict[str, Any]:
    content = io.BytesIO()
    with pa.ipc.new_stream(content, tracks.schema.remove_metadata()) as stream:
        stream.write_table(tracks.replace_schema_metadata().combine_chunks())
    return {
        "tracks": hashlib.sha256(content.getbuffer()).hexdigest(),
        "front_end": extraction.front_end.to_dict(),
        "draws": extraction.draws,
        "seed": extraction.seed if extraction.draws else 0,
        "content_known": tracks["content_id"].null_count == 0,
    }


def _is_done(record: Location, out: Location) -> bool:
    """Whether a finished run stands as it ended; never where a failure was not permanent, or changed audio not seen."""
    if (
        not record.exists()
        or work_plan.load_plan(out / mel_files.RUNS_FOLDER / record.name.removesuffix(".json")) is not None
    ):
        return False
    run = json.loads(record.read_bytes())
    if run["failed_not_permanently"] or not run["asked"]["content_known"]:
        return False
    return [file.name for file in _files(out)] == run["files"]


def _files(out: Location) -> list[Location]:
    return [file for file in out.files(".parquet") if file.name.startswith("mels-")]


def _plan(tracks: pa.Table, out: Location, run_id: str, asked: dict[str, Any], workers: int) -> WorkPlan:
    folder = out / mel_files.RUNS_FOLDER / run_id
    plan = work_plan.load_plan(folder)
    if plan is None:
        folder.delete_tree()
        n_tracks_per_shard = work_plan.shard_size(len(tracks), workers)
        plan = work_plan.write_plan(
            tracks, folder, run_id=run_id, tracks_per_shard=n_tracks_per_shard, parameters=asked
        )
    return plan


class _Extractor:
    """Does shards: reads their tracks, writes their mels."""

    def __init__(self, plan: WorkPlan, out: Location, extraction: Extraction, schema: pa.Schema) -> None:
        self._plan, self._out, self._schema = plan, out, schema
        self._reader = TrackReader(
            extraction.front_end, extraction.limits, draws=extraction.draws, seed=extraction.seed
        )

    def __call__(self, shard: int) -> ShardResult:
        tracks = self._reader.serve_in_order(partial(work_plan.read_shard, self._plan, shard), list)
        done = [track for track in tracks if isinstance(track, Track)]
        failed = [track for track in tracks if isinstance(track, FailedTrack)]
        output = self._out / f"mels-{self._plan.run_id}-{shard:06}.parquet"
        with self._reader.timer.timed("write"):
            if done:
                output.write_bytes(mel_files.encode_mels(done, self._schema))
        mark = ShardResult(
            shard=shard,
            output=output.name if done else "",
            done=len(done),
            failed=len(failed),
            n_segments=sum(len(track.segments.start_s) for track in done),
            audio_s=sum(track.duration_s for track in done),
            spent=self._reader.timer.delta(),
        )
        failures = [track.as_row(attempts=1, model_id=None, run_id=self._plan.run_id) for track in failed]
        work_plan.complete_shard(self._plan, mark, failures)
        return mark


def _finish(plan: WorkPlan, out: Location, record: Location, wall_s: float) -> dict[str, Any]:
    """Drop what earlier runs left, write failures and record; last, open the mels to readers by removing the plan."""
    found, failures = work_plan.read_results(plan, range(plan.n_shards))
    mine = {mark.output for mark in found if mark.output}
    for path, _ in [*(out / mel_files.RUNS_FOLDER).walk()]:
        if path.split("/")[0] != plan.run_id:
            (out / mel_files.RUNS_FOLDER / path).delete()
    for file in _files(out):
        if file.name not in mine:
            file.delete()
    (out / FAILURES_FOLDER / "failures.parquet").write_bytes(to_bytes(failures))
    run = {
        "run_id": plan.run_id,
        "asked": plan.parameters,
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **work_plan.sum_results(found),
        "failed_not_permanently": len(failures) - sum(failures["permanent"].to_pylist()),
        "failures": work_plan.count_errors(failures),
        "wall_s": round(wall_s, 1),
        "files": sorted(mine),
    }
    record.write_json(run)
    work_plan.delete_plan(plan.folder)
    return run


def _summary(run: dict[str, Any], out: Location) -> str:
    failures = ", ".join(f"{error} {count}" for error, count in sorted(run["failures"].items())) or "none"
    return (
        f"{run['done']:,} of {run['planned']:,} tracks, {run['n_segments']:,} segments, "
        f"{run['audio_hours']:.2f} h of audio -> {out}\n"
        f"failures: {failures}\n"
        f"{run['wall_s']:.1f} s, {run['cpu_s'] / max(run['planned'], 1):.2f} CPU seconds a track"
    )
