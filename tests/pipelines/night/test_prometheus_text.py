"""The record of a finished run as Prometheus text: valid, complete, bounded in number, and without ids of tracks."""

import subprocess

import pytest
from builders.prometheus import required
from builders.takedowns import IDS, unfinished

from mtl_core.errors import OtherRunError
from mtl_core.pipelines.night import lease_conflicts, run_end, run_record
from mtl_core.pipelines.night.prometheus_text import prometheus_text
from mtl_core.storage import lease
from mtl_core.storage.location import Location

RECORD = {
    "run_id": "20261128T010000Z-0123ab",
    "planned": 12,
    "tagged": 8,
    "failures": {"decode/corrupt": 3, "fetch/not_found": 1},
    "fetched_bytes": 123_456_789_012,
    "seconds_by_stage": {"decode": 1.5, "model": 0.25},
    "wall_s": 7.5,
    "audio_hours": 0.5,
    "unknown": {"artist": 0.25},
    "unknown_before": {},
    "drift": ["a", "b"],
    "lease_conflicts": 1,
    "ended_at": "1970-01-01T00:01:40+00:00",
}


def test_a_record_becomes_one_sample_for_each_of_its_numbers() -> None:
    text = prometheus_text(RECORD)
    run = 'run="20261128T010000Z-0123ab"'
    assert [line for line in text.splitlines() if line[0] != "#"] == [
        f"mtl_run_tracks_planned{{{run}}} 12",
        f"mtl_run_tracks_tagged{{{run}}} 8",
        f'mtl_run_tracks_failed{{{run},stage="decode",error="corrupt"}} 3',
        f'mtl_run_tracks_failed{{{run},stage="fetch",error="not_found"}} 1',
        f"mtl_run_fetched_bytes{{{run}}} 123456789012",
        f'mtl_run_stage_seconds{{{run},stage="decode"}} 1.5',
        f'mtl_run_stage_seconds{{{run},stage="model"}} 0.25',
        f"mtl_run_wall_seconds{{{run}}} 7.5",
        f"mtl_run_audio_seconds{{{run}}} 1800",
        f'mtl_run_unknown_share{{{run},task="artist"}} 0.25',
        f"mtl_run_drift_warnings{{{run}}} 2",
        f"mtl_run_lease_conflicts{{{run}}} 1",
        f"mtl_run_ended_timestamp_seconds{{{run}}} 100",
    ]


def test_promtool_finds_no_fault() -> None:
    checked = subprocess.run(
        [required("promtool"), "check", "metrics"], input=prometheus_text(RECORD), capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_run_writes_its_record_and_its_metrics_and_counts_the_refused_commands(root: str) -> None:
    out = Location(root)
    runs = out / run_record.FOLDER
    for old in range(run_record.MAX_METRICS + 3):
        (runs / f"20260101T0100{old:02}Z-old{run_record.METRICS}").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(OtherRunError), lease_conflicts.noted(runs):
            raise OtherRunError("another run is at work")
    run_id = "20261128T010000Z-0123ab"
    plan = unfinished(out, run_id, [1, 2, 3], [4])
    with lease.acquire(out) as lock:
        record, _ = run_end.end_run(plan, out, lock, start_s=0.0, tracks_per_s=1.0)
    text = (runs / f"{run_id}{run_record.METRICS}").read_bytes().decode()
    assert text == prometheus_text(record)
    assert f'mtl_run_lease_conflicts{{run="{run_id}"}} 2' in text and record["lease_conflicts"] == 2
    assert lease_conflicts.find(runs) == set(), "the next record does not count them again"
    assert IDS[:6] not in text, "no id of a track"
    kept = runs.files(run_record.METRICS)
    assert len(kept) == run_record.MAX_METRICS and kept[-1].name.startswith(run_id)
    assert [found["run_id"] for found in run_record.newest_records(out)] == [run_id]


def test_a_refused_command_ends_as_refused_even_if_it_cannot_note_it(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(OtherRunError), lease_conflicts.noted(Location("/proc/nothing/runs")):
        raise OtherRunError("another run is at work")
    assert "warning: no metric will show this: /proc/nothing" in capsys.readouterr().err
