"""Verdict: whether too many tracks failed, which decides the exit status of `tag_catalogue`.

It is the share of tracks that still fail, of those that a run tried for the first time. Tracks that failed in nights
before do not count: two that stay unavailable would make every later night one of two failures in two. A command that
tries no new track repeats the verdict on the last run that did. So a retry in the same night does not end an alarm,
unless the tracks are tagged now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.dataset as ds

from mtl_core.pipelines.run_record import ACCEPTED, AUDIO, FOLDER, newest_records
from mtl_core.storage.location import Location
from mtl_core.tables.delta import TABLE_SCHEMAS, open_table


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The failures among the tracks that some runs were the first to try."""

    run_ids: list[str]
    failed: int
    tried: int  # 1 or more
    accepted: bool  # by a person, with --accept-failures

    @property
    def share(self) -> float:
        """Of the tracks that were tried, 0 to 1."""
        return self.failed / self.tried


def read_verdict(out: Location, run_ids: Sequence[str]) -> Verdict | None:
    """The verdict on those of these runs that read audio; where they tried no new track, on the last run that did.

    None: no run has tried a track.
    """
    judged: list[str] = []
    tried = 0
    for record in newest_records(out):
        if tried and record["run_id"] not in run_ids:
            break
        n_tried = record.get("first_tried", record.get("planned", 0))  # a record of version 0.1 has no first_tried
        if record.get("source", AUDIO) == AUDIO and n_tried:
            judged, tried = [record["run_id"], *judged], tried + n_tried
    if not tried:
        return None
    accepted = all(_accepted_file(out, run_id).exists() for run_id in judged)
    return Verdict(run_ids=judged, failed=_count_failed(out, judged), tried=tried, accepted=accepted)


def accept(out: Location, verdict: Verdict) -> None:
    """Note that a person accepts these failures: they raise no alarm any more."""
    about = {"failed": verdict.failed, "tried": verdict.tried, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    for run_id in verdict.run_ids:
        _accepted_file(out, run_id).write_json({"run_id": run_id, **about})


def _accepted_file(out: Location, run_id: str) -> Location:
    return out / FOLDER / f"{run_id}{ACCEPTED}"


def _count_failed(out: Location, run_ids: list[str]) -> int:
    """The tracks that failed first in these runs, and have no tags yet."""
    table = open_table(out, "failures")
    if table is None:
        return 0
    first, last = ds.field("first_run_id"), ds.field("run_id")
    of_runs = first.isin(run_ids) | (first.is_null() & last.isin(run_ids))
    return int(table.to_pyarrow_dataset(schema=TABLE_SCHEMAS["failures"]).count_rows(filter=of_runs))
