"""Run status: what a run of `tag_catalogue` is doing, read from its files, on any machine that reaches OUT."""

import contextlib
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mtl_core.errors import InputError
from mtl_core.pipelines.night.run_record import AUDIO, newest_records
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_reachable
from mtl_core.storage.lease import Holder
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import WorkPlan
from mtl_core.tables.delta import open_table

RECENT_S = 600  # the rate is that of the shards of the last ten minutes; without any there is none
MAX_RESULTS = 2_000  # that are read for the names of failures: the newest
LAST_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that has not ended."""

    run_id: str
    source: str
    model_id: str | None  # None: of an extraction of mels
    planned: int  # tracks
    done: int  # of these, tagged or failed
    failures: dict[str, int]  # "stage/error" -> tracks
    counted: int  # the tracks that the failures are counted in: `done`, or the newest of them
    newest_s_ago: float | None  # since the last shard was complete, by this machine's clock
    tracks_per_s: float | None  # None: too few shards are complete, or none lately
    left_s: float | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is going on under OUT."""

    holder: Holder | None  # of the lease: the command at work
    open_runs: list[OpenRun]
    last_runs: list[dict[str, Any]] = field(default_factory=list)  # records, the newest first


def read_status(out: Location) -> Status:
    """Read the status. Nothing is changed, and no lease is taken.

    Raises:
        InputError: OUT cannot be reached, or no run was ever here.
    """
    check_reachable(out)
    open_runs = []
    for folder in work_plan.runs_in_progress(out):
        with contextlib.suppress(FileNotFoundError):  # the run has just ended
            plan = work_plan.load_plan(folder)
            open_runs += [] if plan is None else [_open_run(plan)]
    records = list(itertools.islice(newest_records(out), LAST_RUNS))
    status = Status(holder=lease.read_holder(out), open_runs=open_runs, last_runs=records)
    if not (status.holder or open_runs or records or open_table(out, "tags")):
        raise InputError(f"{out}: no run of tag_catalogue was ever here")
    return status


def _open_run(plan: WorkPlan) -> OpenRun:
    times = work_plan.completion_times(plan)
    newest = sorted(times, key=times.__getitem__)[-MAX_RESULTS:]
    results, failures = work_plan.read_results(plan, newest)
    done = work_plan.count_tracks(plan, times)
    now = time.time()
    rate = _rate(plan, {shard: at for shard, at in times.items() if at > now - RECENT_S})
    return OpenRun(
        run_id=plan.run_id,
        source=plan.parameters.get("source", AUDIO),
        model_id=plan.parameters.get("model_id"),
        planned=plan.n_tracks,
        done=done,
        failures=work_plan.count_errors(failures),
        counted=sum(result.done + result.failed + result.left for result in results),
        newest_s_ago=now - max(times.values()) if times else None,
        tracks_per_s=rate,
        left_s=None if rate is None else (plan.n_tracks - done) / rate,
    )


def _rate(plan: WorkPlan, times: dict[int, float]) -> float | None:
    """Tracks a second between the first and the last of these shards; without the first, where the time begins."""
    if len(times) < 2:
        return None
    first = min(times, key=times.__getitem__)
    took_s = max(times.values()) - times[first]
    return work_plan.count_tracks(plan, times.keys() - {first}) / took_s if took_s > 0 else None


def describe(status: Status, out: Location) -> str:
    """The status in words."""
    return "\n".join(_lines(status, out))


def _lines(status: Status, out: Location) -> Iterable[str]:
    if status.holder is None:
        yield f"{out}: no command is at work"
    else:
        holder, state = status.holder, "is at work"
        if holder.has_ended or holder.renewed_s_ago > lease.DEAD_AFTER_S:
            state = "was at work and has ended or stands still; the next command takes over"
        renewed = f"{holder.renewed_s_ago:,.0f} s since it renewed the lease"
        yield f"{out}: a command {state}: {holder.host} ({holder.process}), {renewed}"
    for run in status.open_runs:
        share = run.done / max(1, run.planned)
        rate = "" if run.tracks_per_s is None else f", {run.tracks_per_s:,.1f} tracks/s"
        left = "" if run.left_s is None else f", {_duration(run.left_s)} left"
        yield f"run {run.run_id} from {run.source}: {run.done:,} of {run.planned:,} tracks ({share:.0%}){rate}{left}"
        names = ", ".join(f"{name} {count:,}" for name, count in sorted(run.failures.items())) or "none"
        if run.newest_s_ago is not None:
            yield f"  the last shard was complete {_duration(run.newest_s_ago)} ago"
        yield f"  failures among {run.counted:,} of these: {names}"
    if not status.open_runs:
        yield "no run is unfinished"
    for record in status.last_runs:
        yield (
            f"ended {record.get('ended_at', '?')}: run {record['run_id']}, {record.get('planned', 0):,} planned, "
            f"{record.get('tagged', 0):,} tagged, {record.get('failed', 0):,} failed, {record.get('wall_s', 0):,.0f} s"
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"
