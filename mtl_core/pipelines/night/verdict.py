"""Verdict: whether too many tracks failed, which decides the exit status of `tag_catalogue`.

It is the share of tracks that still fail, of those that a run tried for the first time. Tracks that failed in nights
before do not count: two that stay unavailable would make every later night one of two failures in two. A command that
tries no new track repeats the verdict on the last run that did. So a retry in the same night does not end an alarm,
unless the tracks are tagged now.
"""

import itertools
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow.dataset as ds

from mtl_core.pipelines.night.run_record import ACCEPTED, AUDIO, FOLDER, newest_records
from mtl_core.storage.location import Location
from mtl_core.tables.delta import TABLE_SCHEMAS, open_dataset, open_table

TOLD_FILE = "_verdict.json"  # in the folder of the records


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


def read_verdict(out: Location) -> Verdict | None:
    """The verdict on the runs that no command has told of yet; without any, on those that were told of last.

    A command that is killed after its run was committed tells nothing, so the next one must. Runs that read the table
    of tags are left out. None: no run has tried a new track.
    """
    told = _Told.read(out)
    runs = {record["run_id"]: _first_tried(record) for record in newest_records(out, after=told.last)}
    if told.last == "":  # no command of this version has told of a run
        runs = dict(itertools.islice(((run, tried) for run, tried in runs.items() if tried), 1))
    tried = sum(runs.values())
    judged = _Told(run_ids=sorted(run for run, n in runs.items() if n), tried=tried) if tried else told
    if not judged.tried:
        return None
    accepted = all(_accepted_file(out, run_id).exists() for run_id in judged.run_ids)
    failed = _count_failed(out, judged.run_ids)
    return Verdict(run_ids=judged.run_ids, failed=failed, tried=judged.tried, accepted=accepted)


def note_told(out: Location, verdict: Verdict) -> None:
    """Note that a command's exit status tells of this verdict."""
    told = _Told(run_ids=verdict.run_ids, tried=verdict.tried)
    if _Told.read(out) != told:
        (out / FOLDER / TOLD_FILE).write_json(asdict(told))


@dataclass(frozen=True, kw_only=True)
class _Told:
    """The runs that the last exit status told of, as OUT/runs/_verdict.json."""

    run_ids: list[str] = field(default_factory=list)
    tried: int = 0

    @property
    def last(self) -> str:
        return max(self.run_ids, default="")

    @classmethod
    def read(cls, out: Location) -> "_Told":
        file = out / FOLDER / TOLD_FILE
        return cls(**json.loads(file.read_bytes())) if file.exists() else cls()


def _first_tried(record: dict[str, Any]) -> int:
    """The tracks that a run was the first to try; a record of version 0.1 does not tell them from others."""
    if record.get("source", AUDIO) != AUDIO:
        return 0
    return int(record.get("first_tried", record.get("planned", 0)))


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
    return int(open_dataset(out / "failures", table, TABLE_SCHEMAS["failures"]).count_rows(filter=of_runs))
