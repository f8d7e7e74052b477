"""The end of a run of `tag_catalogue`: its shards are complete; verify them, commit, write the record, delete the plan.

It needs neither the model nor Ray, and can be repeated from wherever an earlier try left it.
"""

import logging
import time
from typing import Any

import pyarrow as pa

from mtl_core import log
from mtl_core.pipelines.night import run_record
from mtl_core.storage import work_plan
from mtl_core.storage.lease import Lease
from mtl_core.storage.location import Location
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.work_plan import WorkPlan
from mtl_core.tables import commit
from mtl_core.tables.night_columns import read_night

MAX_FAILURES_LOGGED = 1000  # of a run; the table of failures has all


def end_run(
    plan: WorkPlan, out: Location, lock: Lease, *, start_s: float, tracks_per_s: float
) -> tuple[dict[str, Any], RowFile]:
    """End a run. Returns its record, and the tracks that a run from embeddings refused.

    Args:
        start_s: when the try that ends the run began, on the clock `time.monotonic`.
        tracks_per_s: rate of that try.

    Raises:
        VerificationError: the results do not match the plan; nothing is committed.
    """
    log.set_run_id(plan.run_id)
    results, failures = work_plan.read_results(plan, range(plan.n_shards))
    planned = work_plan.read_columns(plan, ["track_id", "attempts"])
    files = [(plan.folder / result.output, result.done) for result in results if result.done]
    totals = work_plan.sum_results(results)
    verified = commit.verify_and_merge(
        files,
        planned,
        failures,
        out,
        run_id=plan.run_id,
        model_id=plan.parameters["model_id"],
        left=totals["left"],
    )
    refused = work_plan.read_refused(plan, results)
    night = read_night(out / "tags", verified.tags)
    _log_failures(verified.failures)
    commit.commit_run(out, verified, lock.renew)
    lock.renew()
    log.event("commit", tagged=len(verified.tagged), failed=len(verified.failures), dropped=verified.n_dropped)
    committed = {
        "done": len(verified.tagged),
        "failed": len(verified.failures),
        "dropped": verified.n_dropped,
        "first_tried": sum(int((batch["attempts"].to_numpy() == 0).sum()) for batch in planned.to_batches()),
    }
    cost = {
        "wall_s": round(time.monotonic() - start_s, 2),  # commit included
        "tracks_per_s": round(tracks_per_s, 3),
    }
    errors = work_plan.count_errors(verified.failures)
    record = run_record.write(out, plan, totals | committed, cost, refused=len(refused), night=night, failures=errors)
    work_plan.delete_plan(plan.folder)
    return record, refused


def _log_failures(failures: pa.Table) -> None:
    """One event a failed track, up to `MAX_FAILURES_LOGGED`; the last says how many others there are."""
    for row in failures.slice(0, MAX_FAILURES_LOGGED).select(["track_id", "stage", "error"]).to_pylist():
        log.event("failure", level=logging.WARNING, **row)
    if len(failures) > MAX_FAILURES_LOGGED:
        log.event("failures_left_out", level=logging.WARNING, count=len(failures) - MAX_FAILURES_LOGGED)


def end_begun_commits(out: Location, lock: Lease) -> None:
    """End the unfinished runs whose commit has begun: all their shards are complete."""
    for folder in work_plan.runs_in_progress(out):
        plan = work_plan.load_plan(folder)
        if plan is not None and commit.has_committed(out, plan.run_id):
            end_run(plan, out, lock, start_s=time.monotonic(), tracks_per_s=0.0)
