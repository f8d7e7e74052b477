"""Tag a catalogue: plan -> run -> verify -> commit. The same command resumes at each of these steps after any crash.

The open tracks are frozen as a work plan; workers tag its shards; their files are verified against the plan; then
failures and tags are committed to their tables, and the run's record is written last.

Where the table of tags holds the embedding of a track, made by the same trunk from the segments that the model would
read, its tags are computed from that. A night has two runs then: the first reads the table, the second reads audio.

    OUT/tags, OUT/failures    the tables
    OUT/_run/RUN_ID           an unfinished run: its plan, the results of its shards, their tags
    OUT/runs/RUN_ID.json      the record of a finished run
"""

import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow.dataset

from mtl_core import log
from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.dataset import manifest
from mtl_core.errors import InputError
from mtl_core.inference.openvino_engine import CpuModel, load_cpu_model
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.pipelines.night import lease_conflicts, run_end, run_record
from mtl_core.pipelines.night.metrics import RunMetrics
from mtl_core.pipelines.night.run_record import AUDIO, EMBEDDINGS
from mtl_core.pipelines.night.verdict import Verdict, read_verdict
from mtl_core.pipelines.workers import cluster, tagging_chains, worker_capacity
from mtl_core.pipelines.workers.progress import Progress
from mtl_core.pipelines.workers.shard_workers import ReadOptions
from mtl_core.pipelines.workers.worker_capacity import WorkerOptions, Workers
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_writable
from mtl_core.storage.lease import Lease
from mtl_core.storage.location import Location
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.run_id import new_run_id
from mtl_core.storage.work_plan import (
    MAX_TRACKS_PER_SHARD,
    RUNS_IN_PROGRESS,
    SHARDS_PER_FILE,
    WorkPlan,
)
from mtl_core.tables import commit, forgotten, planning
from mtl_core.tables.delta import open_table, require_known_columns, table_version

ROWS_PER_SHARD = 65_536  # of a run that reads the table


@dataclass(frozen=True, kw_only=True)
class TaggingOptions(ExitOptions, WorkerOptions, ReadLimits):
    """Which tracks are tagged, and by what workers.

    Raises:
        ValueError: a number is out of range.
    """

    retry_failed: bool = False
    """Try tracks again whose failure is permanent."""
    retry_days: float = 7
    """A failure that may pass, such as a store that does not answer, is tried again every night until its first one is
    so many days old, 0 or more; then it is permanent."""
    only_changed: bool = False
    """Where tags follow from the embeddings in the table, write those rows alone whose artist or language changes. The
    other rows keep the model_id of the model that wrote them."""
    allow_empty: bool = False
    """Whether a manifest without tracks is right. Otherwise it ends with exit status 2: a list that was not made."""
    limit: int | None = None
    """Plan the first N open tracks by track_id, 1 or more; the rest wait. Default: all."""
    use_gpu: bool = False
    """Run the model on the cluster's GPUs. Nothing flows back to the CPUs that decode, so a fixed number of segments is
    decoded: --segments, or 8 where the model was calibrated for it, else all."""

    def __post_init__(self) -> None:
        ReadLimits.__post_init__(self)
        WorkerOptions.__post_init__(self)
        ExitOptions.__post_init__(self)
        if not 0 <= self.retry_days < math.inf:
            raise ValueError(f"retry_days must be 0 or more, and finite, got {self.retry_days}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be 1 or more, got {self.limit}")
        if self.limit is not None and self.limit >= 2**63:  # Arrow counts rows with 64 bits
            raise ValueError(f"limit must be below 2**63, got {self.limit}")
        if self.limit is not None and self.only_changed:
            raise ValueError("limit is not for only-changed: rows that stay as they are would fill it every night")


@dataclass(frozen=True, kw_only=True)
class TaggingResult:
    """The records of the runs that the command finished, and how many tracks were done before or are forgotten."""

    runs: list[dict[str, Any]]
    already_done: int
    forgotten: int  # tracks of the manifest that were taken down
    verdict: Verdict | None  # on the failures; None: no run has read audio


def tag_catalogue(
    manifest_at: Location,
    model_at: Location,
    out: Location,
    options: TaggingOptions,
    *,
    decoder: str = DECODER,
    gpu_device: str = "cuda",
) -> TaggingResult:
    """Tag every track of a manifest that the tables under `out` have no tags and no permanent failure for.

    Args:
        manifest_at: the manifest, see `dataset.manifest`.
        model_at: folder of the model artifact.
        out: folder of the tables and records.
        options: how the catalogue is tagged.
        decoder: the module that runs as the decoder process. A deployment can name its own, see `decoder_child.serve`.
        gpu_device: of torch, for the GPU workers; tests without a GPU use "cpu".

    Raises:
        InputError: the manifest or the model is wrong, OUT cannot be reached or its tables are newer than this program,
            or the cluster has no room for a worker.
        VerificationError: the results of a run do not match its plan; nothing is committed.
        LeaseLostError: another run has taken over; it commits what this one did.
    """
    model = load_model(model_at, options)
    manifest_version = manifest.delta_version(manifest_at)
    tracks = scan_manifest(manifest_at, options, manifest_version)
    check_writable(out)
    require_known_columns(out)
    read_options = ReadOptions(
        limits=options.read_limits(), decoder=decoder, growth_bytes=options.decoder_growth_bytes()
    )
    asked = _asked(manifest_at, manifest_version, model_at, model.model_id, options)
    with lease_conflicts.noted(out / run_record.FOLDER), lease.acquire(out) as lock:
        skipped = forgotten.find(tracks, out)
        plan_tracks = partial(
            planning.plan_tracks, root=out, model_id=model.model_id, retry_failed=options.retry_failed, skipped=skipped
        )
        n_tracks = tracks.count_rows() - len(skipped)
        unfinished = _runs_to_resume(out, model.model_id)
        open_tracks = None if unfinished else plan_tracks(tracks)
        if open_tracks is not None and not len(open_tracks):  # an unchanged night starts no Ray
            verdict = read_verdict(out)
            return TaggingResult(runs=[], already_done=n_tracks, forgotten=len(skipped), verdict=verdict)
        if open_tracks is not None:
            manifest.check_tracks_readable(tracks, read_options.limits.allowed())
        with cluster.connected(num_cpus=options.num_workers):
            workers = worker_capacity.find_workers(options)
            if options.use_gpu:
                read_and_tag = tagging_chains.on_gpus(model, read_options, workers, model_at, gpu_device)
            else:
                read_and_tag = tagging_chains.on_cpus(model, read_options, workers)
            chains = {
                AUDIO: read_and_tag,
                EMBEDDINGS: tagging_chains.from_table(model, out / "tags", workers, options.use_gpu),
            }
            records = [_run(plan, chains, out, lock)[0] for plan in unfinished]
            if open_tracks is None:  # hours may have passed: the manifest is opened with the credentials of now
                open_tracks = plan_tracks(scan_manifest(manifest_at, options, manifest_version))
            already_done = n_tracks - len(open_tracks)
            of_run = asked | {"already_done": already_done, "forgotten": len(skipped)}

            def run(planned: RowFile, source: str, n_refused: int = 0) -> RowFile:
                lock.renew()  # a paused run that wakes up must not leave a plan behind
                plan = _write_plan(planned, out, of_run | {"source": source, "refused": n_refused}, workers)
                record, refused = _run(plan, chains, out, lock)
                records.append(record)
                return refused

            in_table, to_read = planning.find_embeddings(
                open_tracks.slice(0, options.limit), out, trunk_id=model.trunk_id, model_id=model.model_id
            )
            n_refused = 0
            if len(in_table):
                refused = run(in_table, EMBEDDINGS)
                to_read = planning.merge_tracks(to_read, refused)
                n_refused = len(refused)
            if len(to_read):
                run(to_read, AUDIO, n_refused)
        verdict = read_verdict(out)
    return TaggingResult(runs=records, already_done=already_done, forgotten=len(skipped), verdict=verdict)


def _asked(
    manifest_at: Location, manifest_version: int | None, model_at: Location, model_id: str, options: TaggingOptions
) -> dict[str, Any]:
    """What a run is asked, as JSON values; a resuming command reads them from its plan."""
    return {
        "manifest": manifest_at.uri,
        "manifest_version": manifest_version,  # of a Delta table
        "model": model_at.uri,
        "model_id": model_id,
        "limit": options.limit,
        "retry_failed": options.retry_failed,
        "retry_days": options.retry_days,
        "exit": options.exit,
        "segments": options.segments,
        "only_changed": options.only_changed,
        "read_limits": asdict(options.read_limits())
        | {"allow_uri_prefix": [*(options.allow_uri_prefix or ())]},  # as in JSON
    }


def load_model(model_at: Location, options: TaggingOptions) -> CpuModel:
    """The model. Raises InputError where it is wrong, or the options do not fit it."""
    model = load_cpu_model(model_at)
    if options.segments is not None and model.front_end.segments is None:
        raise InputError(
            f"segments is of models of the sampling spread, and {model_at} is of {model.front_end.sampling}"
        )
    return model


def scan_manifest(
    manifest_at: Location, options: TaggingOptions, version: int | None = None
) -> pyarrow.dataset.Dataset:
    """The tracks of the manifest. Raises InputError where it is wrong, or empty and that is not allowed."""
    tracks = manifest.scan(manifest_at, version)
    if not options.allow_empty and not tracks.count_rows():
        raise InputError(f"{manifest_at}: the manifest has no tracks; --allow-empty allows that")
    return tracks


def _runs_to_resume(out: Location, model_id: str) -> list[WorkPlan]:
    """The unfinished runs of this model, and those of other models whose commit has begun. Others are deleted.

    A run that reads the table is of no use once the table has changed: its rows may lie in other files.
    """
    plans = []
    folders = work_plan.runs_in_progress(out)
    version = table_version(open_table(out, "tags")) if folders else None
    for folder in folders:
        plan = work_plan.load_plan(folder)
        if plan is not None and (
            (plan.parameters["model_id"] == model_id and plan.parameters.get("tags_version", version) == version)
            or commit.has_committed(out, plan.run_id)
        ):
            plans.append(plan)
        else:
            work_plan.delete_plan(folder)
    return plans


def _write_plan(tracks: RowFile, out: Location, parameters: dict[str, Any], workers: Workers) -> WorkPlan:
    run_id = new_run_id()
    most, shards_per_file = MAX_TRACKS_PER_SHARD, SHARDS_PER_FILE
    if parameters["source"] == EMBEDDINGS:
        most, shards_per_file = ROWS_PER_SHARD, 1
        parameters = parameters | {"tags_version": table_version(open_table(out, "tags"))}
    return work_plan.write_plan(
        tracks,
        out / RUNS_IN_PROGRESS / run_id,
        run_id=run_id,
        tracks_per_shard=work_plan.shard_size(len(tracks), workers.count, most),
        parameters=parameters,
        shards_per_file=shards_per_file,
    )


def _run(
    plan: WorkPlan, chains: Mapping[str, tagging_chains.TagShards], out: Location, lock: Lease
) -> tuple[dict[str, Any], RowFile]:
    """Tag the open shards of a plan, verify, commit, and write the record, from wherever an earlier try left it.

    Returns the record, and the tracks that a run of the source `EMBEDDINGS` refused.
    """
    tag_shards = chains[plan.parameters.get("source", AUDIO)]
    start = time.monotonic()
    open_shards = work_plan.open_shards(plan)
    n_open = work_plan.count_tracks(plan, open_shards)
    source, n_done = plan.parameters.get("source", AUDIO), plan.n_tracks - n_open
    log.set_run_id(plan.run_id)
    log.event("planned", source=source, shards=len(open_shards), tracks=plan.n_tracks, done_before=n_done)
    progress = Progress("tagging", plan.n_tracks, n_done)
    with RunMetrics(plan, out, n_done) as metrics:
        if open_shards:
            dataset = tag_shards(plan, open_shards)
            dataset.set_name(f"mtl-{plan.run_id}")  # in Ray's dashboard and in its metrics of datasets
            with closing(progress.watch(dataset.iter_rows())) as counts:
                for shard in counts:
                    log.event("shard_done", tagged=int(shard["done"]), failed=int(shard["failed"]))
                    metrics.add_shard(shard["counts"])
                    lock.raise_if_lost()
        tagging_s = time.monotonic() - start
        metrics.enter("committing")
        n_per_s = n_open / tagging_s  # of this try
        record, refused = run_end.end_run(plan, out, lock, start_s=start, tracks_per_s=n_per_s)
        metrics.end(record)
    return record, refused
