"""Run record: what a run of `tag_catalogue` was asked, did and cost, as `OUT/runs/RUN_ID.json` and `RUN_ID.prom`.

It also sums up the night's tags, so that the nights after can say what has changed.
"""

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from mtl_core import log
from mtl_core.evaluation import drift
from mtl_core.evaluation.drift import NightSummary
from mtl_core.pipelines.night import lease_conflicts
from mtl_core.pipelines.night.prometheus_text import prometheus_text
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import WorkPlan
from mtl_core.tables.night_columns import NightColumns

FOLDER = "runs"
METRICS = ".prom"  # behind the id of a run: its record as Prometheus text
MAX_METRICS = 14  # of these files: the newest ones. What scrapes them must not grow for ever
ACCEPTED = ".accepted.json"  # behind the id of a run whose failures a person has accepted
#: The sources of a run's tags.
AUDIO, EMBEDDINGS = "audio", "embeddings"
MAX_RECORDS_READ = 50  # to find the nights before
_PACKAGES = ("ray", "openvino", "numpy", "av", "soxr", "pyarrow", "deltalake")


def write(
    out: Location,
    plan: WorkPlan,
    totals: Mapping[str, Any],
    cost: Mapping[str, Any],
    *,
    refused: int,
    night: NightColumns,
    failures: Mapping[str, int],
) -> dict[str, Any]:
    """Write the record of a committed run, and return it.

    Args:
        totals: of `work_plan.sum_results`, with the committed tracks as `done` and `failed`; `dropped` and
            `first_tried`.
        cost: other figures of the run.
        refused: of the tracks that the run left as they are, those whose audio must be read.
        night: of the rows that it wrote.
        failures: "stage/error" -> tracks.
    """
    source = plan.parameters.get("source", AUDIO)
    summary = drift.night_summary(night, failures)
    before = nights_before(out, plan.run_id, plan.parameters) if is_a_night(plan.parameters) else []
    conflicts = lease_conflicts.find(out / FOLDER)
    record = {
        "run_id": plan.run_id,
        "source": source,
        "asked": plan.parameters,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "planned": totals["planned"],
        "tagged": totals["done"],
        "failed": totals["failed"],
        "first_tried": totals["first_tried"],  # tracks that had not failed before
        "left": totals["left"],  # of a run that reads the table: rows that stay as they are
        "refused": refused,
        "already_done": plan.parameters["already_done"],
        "forgotten": plan.parameters.get("forgotten", 0),  # tracks of the manifest that were not planned for that
        "dropped": totals["dropped"],  # tracks that were forgotten after they were planned
        "failures": dict(failures),
        "audio_hours": totals["audio_hours"],
        "n_segments": totals["n_segments"],
        "seconds_by_stage": totals["seconds_by_stage"],
        "fetched_bytes": totals["fetched_bytes"],
        **cost,
        "cpu_s_per_track": round(totals["cpu_s"] / max(1, totals["planned"]), 4),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "night": summary.to_dict(),  # what the next nights are compared with
        "drift": drift.warnings(summary, before),
        "unknown": drift.unknown_shares([summary]),  # task -> share of the tracks with sound
        "unknown_before": drift.unknown_shares(before),
        "lease_conflicts": len(conflicts),  # commands that were refused while the run held the lease
    }
    (out / FOLDER / f"{plan.run_id}.json").write_json(record)
    (out / FOLDER / f"{plan.run_id}{METRICS}").write_bytes(prometheus_text(record).encode())
    lease_conflicts.delete(out / FOLDER, conflicts)
    for old in (out / FOLDER).files(METRICS)[:-MAX_METRICS]:
        old.delete()
    return record


def newest_records(out: Location, after: str = "") -> Iterator[dict[str, Any]]:
    """The records of finished runs, the newest first: those after a run, or the last `MAX_RECORDS_READ`."""
    names = sorted(record_names(out))
    later = [name for name in names if name > f"{after}.json"]
    yield from read_records(out, later if after else names[-MAX_RECORDS_READ:])


def record_names(out: Location) -> set[str]:
    """The names of the files of all records."""
    return {file.name for file in (out / FOLDER).files(".json") if not file.name.endswith(ACCEPTED)}


def read_records(out: Location, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """These records, the newest first.

    A record that cannot be read is passed over with a warning: it is no reason to stop a run that is committed.
    """
    for name in sorted(names, reverse=True):
        file = out / FOLDER / name
        try:
            record = json.loads(file.read_bytes())
            if not isinstance(record, dict) or "run_id" not in record:
                raise ValueError("it is no record of a run")
        except ValueError as error:
            log.warning(f"{file} is passed over: {error}")
        else:
            yield record


def nights_before(out: Location, run_id: str, asked: Mapping[str, Any]) -> list[NightSummary]:
    """The last runs of the same model and source as a run that was asked this, from their records."""
    nights: list[NightSummary] = []
    source = asked.get("source", AUDIO)
    for record in newest_records(out):
        try:
            is_alike = "night" in record and record["source"] == source and record["run_id"] != run_id
            is_alike = is_alike and record["asked"]["model_id"] == asked["model_id"]
            if is_alike and is_a_night(record["asked"]):
                nights.append(NightSummary.from_dict(record["night"]))
        except (ValueError, KeyError, TypeError) as error:
            log.warning(f"run {record.get('run_id')} is not compared with: {error!r}")
        if len(nights) == drift.NIGHTS:
            break
    return nights


def is_a_night(asked: Mapping[str, Any]) -> bool:
    """Whether a run's tags are those of an ordinary night: not of changed rows alone, nor of tracks that a run before
    has refused, which are the hard ones."""
    of_changes = asked.get("only_changed") and asked.get("source") == EMBEDDINGS
    return not of_changes and not asked.get("refused")
