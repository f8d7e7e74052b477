"""Tag a catalogue: plan -> run -> verify -> commit, each of which the same command takes up again after any crash.

What is still to do is frozen as a plan; workers do its shards; what they left is verified against the plan; then
failures and tags enter their tables, and the run's record is written, last. One row is one track from end to end.

    OUT/tags, OUT/failures    the tables
    OUT/_run/RUN_ID           an unfinished run: its plan, its marks, its shards' tags
    OUT/runs/RUN_ID.json      the record of a finished run
"""

import importlib.metadata
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from mtl_core.audio.decoder_process import DECODER, DecoderLimits
from mtl_core.audio.track_reader import TrackReader
from mtl_core.dataset import manifest
from mtl_core.inference.openvino_engine import CpuModel, load_cpu_model
from mtl_core.inference.tagger import Tagger
from mtl_core.pipelines.workers import cluster
from mtl_core.pipelines.workers.shard_pool import Stage, run_shards
from mtl_core.pipelines.workers.shard_workers import ShardReader, ShardTagger, ShardWorker
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_writable
from mtl_core.storage.lease import Lease
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import RUNS_IN_PROGRESS, ShardResult, WorkPlan
from mtl_core.tables import commit, planning
from mtl_core.tables.delta import require_known_columns

RECORDS = "runs"
_PACKAGES = ("ray", "openvino", "torch", "numpy", "soundfile", "soxr", "pyarrow", "deltalake")


@dataclass(frozen=True, kw_only=True)
class Tagging:
    """How a catalogue is tagged.

    Args:
        retry_failed: plan tracks with a permanent failure too.
        limit: plan the first so many open tracks by `track_id`; None: all.
        workers: actors; None: one for each CPU of the cluster.
        use_gpu: run the model on the cluster's GPUs, one worker each, fed by `workers` that read.
        gpu_device: of torch, where that worker runs it; tests without a GPU say "cpu".
        limits: of the decoder, for one track.
        decoder: the module whose process decodes: a deployment's own for formats of its own, see `decoding.serve`.

    Raises:
        ValueError: a number is out of range.
    """

    retry_failed: bool = False
    limit: int | None = None
    workers: int | None = None
    use_gpu: bool = False
    gpu_device: str = "cuda"
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    decoder: str = DECODER

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be 1 or more, got {self.limit}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be 1 or more, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """What became of the command: the records of the runs it finished, and the open tracks that were done already."""

    runs: list[dict[str, Any]]
    already_done: int

    @property
    def failed_share(self) -> float:
        """Failed of planned, 0 to 1; 0 where nothing was planned."""
        return sum(run["failed"] for run in self.runs) / max(1, sum(run["planned"] for run in self.runs))


def tag_catalogue(manifest_at: Location, model_at: Location, out: Location, tagging: Tagging) -> Tagged:
    """Tag every track of a manifest that the tables under `out` do not speak for yet.

    Raises:
        InputError: the manifest or the model is wrong, OUT cannot be reached or is newer than this program, or the
            cluster has no room for a worker.
        VerificationError: a run's outcome is not what it planned; nothing is committed.
        LeaseLostError: another run has taken over; it commits what this one did.
    """
    network = load_cpu_model(model_at)
    model_id = network.model_id
    tracks = manifest.scan(manifest_at)
    check_writable(out)
    require_known_columns(out)
    asked = {
        "manifest": manifest_at.uri,
        "model": model_at.uri,
        "model_id": model_id,
        "limit": tagging.limit,
        "retry_failed": tagging.retry_failed,
        "decode_limits": asdict(tagging.limits),
    }
    runs: list[dict[str, Any]] = []
    open_tracks = partial(planning.plan_tracks, tracks, out, model_id, retry_failed=tagging.retry_failed)
    with lease.acquire(out) as lock:
        unfinished = _unfinished(out, model_id)
        still_open = None if unfinished else open_tracks()
        if still_open is not None and not len(still_open):
            return Tagged(runs=[], already_done=tracks.count_rows())  # no Ray is started for nothing
        with cluster.connected(num_cpus=tagging.workers):
            workers = cluster.require_workers(tagging.workers)
            run = partial(_run, out=out, stages=_stages(tagging, network, model_at, workers), lock=lock)
            runs += [run(plan) for plan in unfinished]
            still_open = open_tracks() if still_open is None else still_open
            already_done = tracks.count_rows() - len(still_open)
            planned = still_open.slice(0, tagging.limit)
            if len(planned):
                lock.renew()  # a paused run that wakes up leaves no plan behind
                runs.append(
                    run(
                        _freeze(
                            planned,
                            out,
                            asked | {"already_done": already_done},
                            cluster.require_workers(tagging.workers),
                        )
                    )
                )
    return Tagged(runs=runs, already_done=already_done)


def _stages(tagging: Tagging, network: CpuModel, model_at: Location, workers: int) -> Callable[[WorkPlan], list[Stage]]:
    """Who works a plan off: workers that read and tag, or, where GPUs are asked for, readers before them.

    Raises:
        InputError: the cluster has no room for a GPU's worker.
    """
    reader = partial(TrackReader, network.front_end, tagging.limits, decoder=tagging.decoder)
    if not tagging.use_gpu:
        tagger = partial(_cpu_tagger, network)
        return lambda plan: [
            Stage(
                make=partial(ShardWorker, plan, reader, tagger),
                workers=workers,
                resources=ONE_CPU,
                calls=work_plan.SHARDS_PER_WORKER,
            )
        ]
    gpus = cluster.require_workers(cluster.gpus() or 1, num_cpus=0, num_gpus=1)
    tagger = partial(_gpu_tagger, _torch_model(model_at), network, tagging.gpu_device)
    return lambda plan: [
        Stage(
            make=partial(ShardReader, plan, reader),
            workers=workers,
            resources=ONE_CPU,
            calls=work_plan.SHARDS_PER_WORKER,
        ),
        Stage(make=partial(ShardTagger, plan, tagger), workers=gpus, resources={"num_cpus": 0, "num_gpus": 1}),
    ]


ONE_CPU = {"num_cpus": 1}


def _cpu_tagger(network: CpuModel) -> Tagger:
    return Tagger(network.engine(), network.vocabularies, network.aggregation)


def _torch_model(model_at: Location) -> Any:
    """The model in torch, which nobody but a GPU needs: its import takes seconds."""
    from mtl_core.inference.artifact import load_artifact

    return load_artifact(model_at).model


def _gpu_tagger(model: Any, network: CpuModel, device: str) -> Tagger:
    from mtl_core.inference.torch_engine import TorchEngine

    return Tagger(TorchEngine(model, device), network.vocabularies, network.aggregation)


def _unfinished(out: Location, model_id: str) -> list[WorkPlan]:
    """The runs to finish: the one of this model, and one of another whose commit was begun; others are discarded."""
    found = []
    for folder in work_plan.runs_in_progress(out):
        plan = work_plan.load_plan(folder)
        if plan is not None and (plan.parameters["model_id"] == model_id or commit.has_committed(out, plan.run_id)):
            found.append(plan)
        else:
            work_plan.delete_plan(folder)
    return found


def _freeze(planned: pa.Table, out: Location, asked: dict[str, Any], workers: int) -> WorkPlan:
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    n_tracks_per_shard = work_plan.shard_size(len(planned), workers)
    return work_plan.write_plan(
        planned,
        out / RUNS_IN_PROGRESS / run_id,
        run_id=run_id,
        tracks_per_shard=n_tracks_per_shard,
        parameters=asked,
    )


def _run(
    plan: WorkPlan,
    *,
    out: Location,
    stages: Callable[[WorkPlan], list[Stage]],
    lock: Lease,
) -> dict[str, Any]:
    """Work a plan off, verify, commit, and write the record: from wherever an earlier try left it."""
    begun = time.monotonic()
    n_now = run_shards(plan, stages(plan), what="tagging", check_lease=lock.raise_if_lost)
    worked_s = time.monotonic() - begun
    found, failures = work_plan.read_results(plan, range(plan.n_shards))
    planned = work_plan.read_columns(plan, ["track_id"])
    staged = [(plan.folder / mark.output, mark.done) for mark in found if mark.done]
    outcome = commit.verify_and_merge(
        staged, planned, failures, out, run_id=plan.run_id, model_id=plan.parameters["model_id"]
    )
    commit.commit_run(out, outcome, lock.renew)
    lock.renew()
    record = _record(plan, found, failures, n_now, worked_s, time.monotonic() - begun)
    (out / RECORDS / f"{plan.run_id}.json").write_json(record)
    work_plan.delete_plan(plan.folder)
    return record


def _record(
    plan: WorkPlan, found: list[ShardResult], failures: pa.Table, n_now: int, worked_s: float, wall_s: float
) -> dict[str, Any]:
    totals = work_plan.sum_results(found)
    return {
        "run_id": plan.run_id,
        "asked": plan.parameters,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "planned": totals["planned"],
        "tagged": totals["done"],
        "failed": totals["failed"],
        "already_done": plan.parameters["already_done"],
        "failures": work_plan.count_errors(failures),
        "audio_hours": totals["audio_hours"],
        "n_segments": totals["n_segments"],
        "seconds_by_stage": totals["seconds_by_stage"],
        "wall_s": round(wall_s, 2),  # of the try that ended the run, commit and all
        "tracks_per_s": round(n_now / worked_s, 3),  # of that try
        "cpu_s_per_track": round(totals["cpu_s"] / max(1, totals["planned"]), 4),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
