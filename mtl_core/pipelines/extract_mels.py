"""Extract mels: every track of a manifest -> the mels of its segments in Parquet, for training and evaluation.

A run is named by a hash of what it is made from: the same command resumes an unfinished run and recognises a finished
one. Its files go directly into OUT; when it ends, the files of earlier runs are deleted.

    OUT/mels-RUN_ID-*.parquet       the mels
    OUT/_failures/failures.parquet  the tracks that failed
    OUT/_runs/RUN_ID                the plan of an unfinished run; while it is there, the mels are not to be read
    OUT/_runs/RUN_ID.json           the record of the finished run
"""

import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.audio.front_end import FrontEnd, define_front_end, sampling_parameters
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.canonical import run_sha256
from mtl_core.dataset import manifest, mel_files
from mtl_core.errors import InputError
from mtl_core.pipelines.workers import cluster, worker_capacity
from mtl_core.pipelines.workers.progress import Progress
from mtl_core.pipelines.workers.shard_workers import ExtractShard, ReadOptions
from mtl_core.pipelines.workers.worker_capacity import WorkerOptions
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.work_plan import SHARDS_PER_WORKER, WorkPlan

FAILURES_FOLDER = "_failures"


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions(WorkerOptions, ReadLimits):
    """Which segments become mels, and by what workers.

    Raises:
        ValueError: a number is out of range.
    """

    sampling: str = "spread"
    """Which segments stand for a recording: spread (evenly over all of it) or paper (of two excerpts of a minute)."""
    segments: int | None = None
    """Segments of 3 s of a recording with --sampling spread, 1 to 1024; by default 32."""
    segments_per_excerpt: int | None = None
    """Segments of 3 s kept of each minute with --sampling paper, 1 to 20; by default 20, back to back. The paper's own
    count is 2."""
    draws: int = 0
    """Random starts for each segment slot instead of the fixed grid, 1 to 100; 0 is the fixed grid."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        ReadLimits.__post_init__(self)
        WorkerOptions.__post_init__(self)
        if not 0 <= self.draws <= 100:
            raise ValueError(f"draws must be 0 (the fixed grid) to 100, got {self.draws}")
        FrontEnd(**self.sampling_parameters())  # checks them

    def sampling_parameters(self) -> dict[str, Any]:
        """The arguments of the front end."""
        return sampling_parameters(self.sampling, self.segments, self.segments_per_excerpt)


def extract_mels(manifest_at: Location, out: Location, options: ExtractionOptions, *, decoder: str = DECODER) -> str:
    """Extract the mels of all tracks of a manifest.

    Args:
        manifest_at: the manifest, see `dataset.manifest`.
        out: folder of the mels.
        options: how they are extracted.
        decoder: the module that runs as the decoder process. A deployment can name its own, see `decoder_child.serve`.

    Returns:
        A summary for people.

    Raises:
        InputError: the manifest is wrong, OUT cannot be reached, or the cluster has no room for a worker.
    """
    tracks = manifest.read(manifest_at)
    check_writable(out)
    if not len(tracks):
        raise InputError(f"{manifest_at}: the manifest has no tracks")
    tracks = tracks.sort_by("track_id")
    read_options = ReadOptions(
        limits=options.read_limits(),
        decoder=decoder,
        growth_bytes=options.decoder_growth_bytes(),
        draws=options.draws,
        seed=options.seed,
    )
    parameters = _parameters(tracks, FrontEnd(**options.sampling_parameters()), read_options)
    run_id = run_sha256(parameters)[:12]
    record = out / mel_files.RUNS_FOLDER / f"{run_id}.json"
    if _is_done(record, out):
        return f"nothing to do: {out} holds the mels of this manifest\n{_summary(json.loads(record.read_bytes()), out)}"
    manifest.check_tracks_readable(tracks, read_options.limits.allowed())
    front_end = define_front_end(**options.sampling_parameters())  # librosa: not for a finished run
    with lease.acquire(out), cluster.connected(num_cpus=options.num_workers):
        workers = worker_capacity.find_workers(options)
        plan = _resume_or_write_plan(tracks, out, run_id, parameters, workers.count)
        start = time.monotonic()
        open_shards = work_plan.open_shards(plan)
        progress = Progress("extracting mels", plan.n_tracks, plan.n_tracks - work_plan.count_tracks(plan, open_shards))
        if open_shards:
            import ray.data

            schema = mel_files.mels_schema(front_end, tracks.schema)
            counts = (
                ray.data.from_items(open_shards, override_num_blocks=len(open_shards))
                .map_batches(
                    ExtractShard,
                    fn_constructor_args=(plan, out, front_end, read_options, schema),
                    batch_size=1,
                    num_cpus=1,
                    memory=workers.memory_bytes,
                    compute=cluster.actor_pool(workers.count, len(open_shards), concurrency=SHARDS_PER_WORKER),
                )
                .iter_rows()
            )
            for _ in progress.watch(counts):
                pass
        return _summary(_finish(plan, out, record, time.monotonic() - start), out)


def _parameters(tracks: pa.Table, front_end: FrontEnd, options: ReadOptions) -> dict[str, Any]:
    """All that the mels depend on; the run is named by it."""
    content = io.BytesIO()
    with pa.ipc.new_stream(content, tracks.schema.remove_metadata()) as stream:
        stream.write_table(tracks.replace_schema_metadata().combine_chunks())
    parameters = {
        "tracks": hashlib.sha256(content.getbuffer()).hexdigest(),
        "front_end": front_end.to_dict(),
        "draws": options.draws,
        "seed": options.seed if options.draws else 0,
        "content_known": tracks["content_id"].null_count == 0,
    }
    limits, default = asdict(options.limits), asdict(ReadLimits())
    # tracks beyond a limit have no mels
    changed = {name: value for name, value in limits.items() if value != default[name]}
    parameters |= {"limits": changed} if changed else {}
    return parameters if options.decoder == DECODER else parameters | {"decoder": options.decoder}


def _is_done(record: Location, out: Location) -> bool:
    """Whether a run has finished and its files are all that lies in OUT.

    Never if a failure was not permanent, or if the manifest cannot tell whether the audio has changed.
    """
    folder = out / mel_files.RUNS_FOLDER / record.name.removesuffix(".json")
    if not record.exists() or work_plan.load_plan(folder) is not None:
        return False
    run = json.loads(record.read_bytes())
    if run["failed_not_permanently"] or not run["asked"]["content_known"]:
        return False
    return [file.name for file in _files(out)] == run["files"]


def _files(out: Location) -> list[Location]:
    return [file for file in out.files(".parquet") if file.name.startswith("mels-")]


def _resume_or_write_plan(
    tracks: pa.Table, out: Location, run_id: str, parameters: dict[str, Any], workers: int
) -> WorkPlan:
    folder = out / mel_files.RUNS_FOLDER / run_id
    plan = work_plan.load_plan(folder)
    if plan is not None:
        return plan
    folder.delete_tree()
    return work_plan.write_plan(
        tracks,
        folder,
        run_id=run_id,
        tracks_per_shard=work_plan.shard_size(len(tracks), workers),
        parameters=parameters,
    )


def _finish(plan: WorkPlan, out: Location, record: Location, wall_s: float) -> dict[str, Any]:
    """Delete the files of earlier runs, and write failures and record. Deleting the plan opens the mels to readers."""
    results, failures = work_plan.read_results(plan, range(plan.n_shards))
    own_files = {result.output for result in results if result.output}
    for path, _ in [*(out / mel_files.RUNS_FOLDER).walk()]:
        if path.split("/")[0] != plan.run_id:
            (out / mel_files.RUNS_FOLDER / path).delete()
    for file in _files(out):
        if file.name not in own_files:
            file.delete()
    (out / FAILURES_FOLDER / "failures.parquet").write_bytes(to_bytes(failures))
    run = {
        "run_id": plan.run_id,
        "asked": plan.parameters,
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **work_plan.sum_results(results),
        "failed_not_permanently": len(failures) - sum(failures["permanent"].to_pylist()),
        "failures": work_plan.count_errors(failures),
        "wall_s": round(wall_s, 1),
        "files": sorted(own_files),
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
