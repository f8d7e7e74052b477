"""Prometheus text: the record of a finished run as metrics, OUT/runs/RUN_ID.prom.

A night can be shorter than a scrape, and its metrics end with its Ray. This file stays. Names are those of the live
metrics (`metrics`) with `mtl_run_` for `ray_mtl_`. It holds numbers and names of this program, and no id of a track.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

#: A sample: the labels beside `run`, and the value.
_Sample = tuple[dict[str, str], float]


def prometheus_text(record: Mapping[str, Any]) -> str:
    """The record of a run as gauges with the label `run`."""
    lines = []
    for name, (about, samples) in _metrics(record).items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
        for labels, value in samples:
            text = ",".join(f'{key}="{label}"' for key, label in ({"run": record["run_id"]} | labels).items())
            lines.append(f"{name}{{{text}}} {value:.15g}")
    return "".join(f"{line}\n" for line in lines)


def _metrics(record: Mapping[str, Any]) -> dict[str, tuple[str, list[_Sample]]]:
    """Name -> what it is, and its samples; those without any are left out."""

    def number(key: str) -> list[_Sample]:
        return [({}, record[key])]

    def by(label: str, values: Mapping[str, float]) -> list[_Sample]:
        return [({label: key}, value) for key, value in values.items()]

    ended_s = datetime.fromisoformat(record["ended_at"]).timestamp()
    metrics: dict[str, tuple[str, list[_Sample]]] = {
        "mtl_run_tracks_planned": ("Tracks that the run planned.", number("planned")),
        "mtl_run_tracks_tagged": ("Tracks that the run tagged.", number("tagged")),
        "mtl_run_tracks_failed": ("Tracks that failed, by stage and error.", list(_failed(record["failures"]))),
        "mtl_run_fetched_bytes": ("Bytes downloaded from object stores.", number("fetched_bytes")),
        "mtl_run_stage_seconds": (
            "Seconds of all workers together, by stage.",
            by("stage", record["seconds_by_stage"]),
        ),
        "mtl_run_wall_seconds": ("Seconds of the try that ended the run.", number("wall_s")),
        "mtl_run_audio_seconds": ("Length of the tagged tracks.", [({}, record["audio_hours"] * 3600)]),
        "mtl_run_unknown_share": ("Share of tracks with an unknown label, 0 to 1.", by("task", record["unknown"])),
        "mtl_run_unknown_share_before": (
            "The same in the nights before, of the same model and source.",
            by("task", record["unknown_before"]),
        ),
        "mtl_run_drift_warnings": ("Warnings that the night's tags differ.", [({}, len(record["drift"]))]),
        "mtl_run_lease_conflicts": ("Commands refused with exit status 4.", number("lease_conflicts")),
        "mtl_run_ended_timestamp_seconds": ("When the run ended.", [({}, ended_s)]),
    }
    return {name: metric for name, metric in metrics.items() if metric[1]}


def _failed(failures: Mapping[str, int]) -> Iterator[_Sample]:
    for name, tracks in failures.items():
        stage, _, error = name.partition("/")
        yield {"stage": stage, "error": error}, tracks
