"""Metrics: what a run is doing, for Prometheus, through Ray's metrics; all of them begin with `mtl_`.

The driver counts all of them, from the counts that each shard returns: it outlives its workers, so a worker that is
killed takes no count with it. Ray exports a metric `mtl_x` as `ray_mtl_x`, and a counter as `ray_mtl_x_total`. A
counter stays as long as the node of the driver. A gauge is gone 20 s after it was set, so gauges are repeated while the
run lives. Counters are those of one driver: where a run is resumed, sum them by `run`. See docs/monitoring.md.
"""

import json
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ray.util.metrics import Counter, Gauge

from mtl_core import log
from mtl_core.errors import InputError
from mtl_core.evaluation import drift
from mtl_core.pipelines.night import lease_conflicts, run_record
from mtl_core.pipelines.workers.shard_workers import ShardCounts
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location
from mtl_core.storage.run_id import planned_at_s
from mtl_core.storage.work_plan import WorkPlan

REPEAT_S = 1.0
CONFLICTS_EVERY_S = 60.0  # a request to the store
STATES = ("tagging", "committing")  # of a run at work
#: name -> what it is, and its labels beside `run`
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mtl_tracks_tagged": ("Tracks that were tagged.", ()),
    "mtl_tracks_failed": ("Tracks that failed, by stage and error.", ("stage", "error")),
    "mtl_fetched_bytes": ("Bytes downloaded from object stores.", ()),
    "mtl_stage_seconds": ("Seconds of all workers together, by stage.", ("stage",)),
    "mtl_drift_warnings": ("Warnings that the night's tags differ from those of the nights before.", ()),
    "mtl_lease_conflicts": ("Commands refused with exit status 4 since the last record.", ()),
    "mtl_runs_ended": ("Drivers that ended the run, by state: done, or failed with an error.", ("state",)),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mtl_tracks_planned": ("Tracks that the run planned.", ()),
    "mtl_tracks_done": ("Of these, tagged, failed or left as they are, in all tries.", ()),
    "mtl_unknown_share": ("Share of tracks with an unknown label, of those with sound, 0 to 1.", ("task",)),
    "mtl_unknown_share_before": ("The same in the nights before, of the same model and source.", ("task",)),
    "mtl_run_state": ("1 in the state of the run: tagging, committing; else 0.", ("state",)),
    "mtl_planned_timestamp_seconds": ("When the run was planned.", ()),
}


class RunMetrics:
    """The metrics of a run, on its driver; a context manager, whose body is the run.

    Args:
        plan: of the run.
        out: folder of the tables.
        done: tracks that earlier tries of this run did.
    """

    def __init__(self, plan: WorkPlan, out: Location, done: int) -> None:
        self._plan, self._out = plan, out
        self._counters = {
            name: Counter(name, about, ("run", *labels)).set_default_tags({"run": plan.run_id})
            for name, (about, labels) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(name, about, ("run", *labels)).set_default_tags({"run": plan.run_id})
            for name, (about, labels) in GAUGES.items()
        }
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}  # of the gauges, by name and labels
        self._done, self._unknown, self._judged = done, Counts[str](), Counts[str]()
        self._conflicts: set[str] = set()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._repeat, daemon=True, name="metrics")

    def __enter__(self) -> "RunMetrics":
        self._set("mtl_tracks_planned", self._plan.n_tracks)
        self._set("mtl_tracks_done", self._done)
        self._set("mtl_planned_timestamp_seconds", planned_at_s(self._plan.run_id))
        self.enter("tagging")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(REPEAT_S)  # a store may not answer it
        self._count("mtl_runs_ended", 1, state="done" if kind is None else "failed")

    def enter(self, state: str) -> None:
        """Note the state that the run is in now, one of `STATES`."""
        self._state = state
        for other in STATES:
            self._set("mtl_run_state", float(other == state), state=other)

    def add_shard(self, counts: str) -> None:
        """Add what a shard returned: `ShardCounts` as JSON."""
        shard = ShardCounts(**json.loads(counts))
        self._done += shard.ended
        self._set("mtl_tracks_done", self._done)
        self._count("mtl_tracks_tagged", shard.tagged)
        self._count("mtl_fetched_bytes", shard.fetched_bytes)
        for name, tracks in shard.failures.items():
            stage, _, error = name.partition("/")
            self._count("mtl_tracks_failed", tracks, stage=stage, error=error)
        for stage, seconds in shard.seconds.items():
            self._count("mtl_stage_seconds", seconds, stage=stage)
        for task, (unknown, judged) in shard.unknown.items():
            self._unknown[task] += unknown
            self._judged[task] += judged
            if self._judged[task]:
                self._set("mtl_unknown_share", self._unknown[task] / self._judged[task], task=task)

    def end(self, record: dict[str, Any]) -> None:
        """Set the metrics for which the record is better: it includes earlier tries."""
        for task, share in record["unknown"].items():
            self._set("mtl_unknown_share", share, task=task)
        self._count("mtl_drift_warnings", len(record["drift"]))
        self._count("mtl_lease_conflicts", record["lease_conflicts"] - len(self._conflicts))

    def _count(self, name: str, value: float, **labels: str) -> None:
        if value > 0:  # Ray refuses 0
            self._counters[name].inc(value, labels)

    def _set(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._values[name, tuple(labels.items())] = value
        self._gauges[name].set(value, labels)

    def _repeat(self) -> None:
        """Repeat the gauges until the run ends, and read from the store what only it knows."""
        self._from_store(self._set_unknown_before)
        next_look_s = 0.0
        while True:
            if self._state == "tagging" and time.monotonic() >= next_look_s:  # later, the record counts them
                self._from_store(self._count_conflicts)
                next_look_s = time.monotonic() + CONFLICTS_EVERY_S
            with self._lock:
                values = list(self._values.items())
            for (name, labels), value in values:
                self._gauges[name].set(value, dict(labels))
            if self._stop.wait(REPEAT_S):
                return

    def _from_store(self, read: Callable[[], None]) -> None:
        """Read something from the store. If that fails, the run goes on without it."""
        try:
            with as_input_error(self._out):
                read()
        except InputError as error:
            log.warning(f"the metrics of run {self._plan.run_id} lack something: {error}")

    def _set_unknown_before(self) -> None:
        if run_record.is_a_night(self._plan.parameters):
            before = run_record.nights_before(self._out, self._plan.run_id, self._plan.parameters)
            for task, share in drift.unknown_shares(before).items():
                self._set("mtl_unknown_share_before", share, task=task)

    def _count_conflicts(self) -> None:
        new = lease_conflicts.find(self._out / run_record.FOLDER) - self._conflicts
        self._conflicts |= new
        self._count("mtl_lease_conflicts", len(new))
