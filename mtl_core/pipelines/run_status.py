"""Run status: what a run of `tag_catalogue` is doing, read from its files, on any machine that reaches OUT."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mtl_core.errors import InputError
from mtl_core.pipelines.run_record import AUDIO, newest_records
from mtl_core.storage import lease, work_plan
from mtl_core.storage.checks import check_reachable
from mtl_core.storage.lease import Holder
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import WorkPlan
from mtl_core.tables.delta import open_table

RECENT_S = 600  # the rate is that of the shards of the last ten minutes
MAX_RESULTS = 2_000  # that are read for the names of failures: the newest
LAST_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that has not ended."""

    run_id: str
    source: str
    model_id: str
    planned: int  # tracks
    done: int  # of these, tagged or failed
    failures: dict[str, int]  # "stage/error" -> tracks
    counted: int  # the tracks that the failures are counted in: `done`, or the newest of them
    tracks_per_s: float | None  # None: too few shards are complete
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
    plans = [work_plan.load_plan(folder) for folder in work_plan.runs_in_progress(out)]
    records = [record for record, _ in zip(newest_records(out), range(LAST_RUNS), strict=False)]
    status = Status(
        holder=lease.read_holder(out), open_runs=[_open_run(plan) for plan in plans if plan], last_runs=records
    )
    if not (status.holder or plans or records or open_table(out, "tags")):
        raise InputError(f"{out}: no run of tag_catalogue was ever here")
    return status


def _open_run(plan: WorkPlan) -> OpenRun:
    times = work_plan.completion_times(plan)
    newest = sorted(times, key=times.__getitem__)[-MAX_RESULTS:]
    results, failures = work_plan.read_results(plan, newest)
    done = work_plan.count_tracks(plan, times)
    rate = _rate(plan, times)
    return OpenRun(
        run_id=plan.run_id,
        source=plan.parameters.get("source", AUDIO),
        model_id=plan.parameters["model_id"],
        planned=plan.n_tracks,
        done=done,
        failures=work_plan.count_errors(failures),
        counted=sum(result.done + result.failed + result.left for result in results),
        tracks_per_s=rate,
        left_s=None if rate is None else (plan.n_tracks - done) / rate,
    )


def _rate(plan: WorkPlan, times: dict[int, float]) -> float | None:
    """Tracks a second between the first and the last of the shards that were completed in the last `RECENT_S`."""
    last = max(times.values(), default=0.0)
    recent = {shard: time for shard, time in times.items() if time > last - RECENT_S}
    first = min(recent, key=recent.__getitem__, default=0)
    took_s = last - recent.get(first, last)
    return work_plan.count_tracks(plan, recent.keys() - {first}) / took_s if took_s > 0 else None


def describe(status: Status, out: Location) -> str:
    """The status in words."""
    return "\n".join(_lines(status, out))


def _lines(status: Status, out: Location) -> Iterable[str]:
    if status.holder is None:
        yield f"{out}: no command is at work"
    else:
        ended = ", which has ended; the next command takes over" if status.holder.has_ended else ""
        yield f"{out}: a command is at work on {status.holder.host} ({status.holder.process}){ended}"
    for run in status.open_runs:
        share = run.done / max(1, run.planned)
        rate = "" if run.tracks_per_s is None else f", {run.tracks_per_s:,.1f} tracks/s"
        left = "" if run.left_s is None else f", {_duration(run.left_s)} left"
        yield f"run {run.run_id} from {run.source}: {run.done:,} of {run.planned:,} tracks ({share:.0%}){rate}{left}"
        names = ", ".join(f"{name} {count:,}" for name, count in sorted(run.failures.items())) or "none"
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
