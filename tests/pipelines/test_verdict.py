"""The alarm: of the tracks that a run tried first, too many fail. It ends when they are tagged, or a person accepts."""

import json
import sys
from pathlib import Path

import pytest
from tables.nights import a_failure, a_tag, night

from mtl_core.jobs import tag_catalogue as job
from mtl_core.pipelines.tag_catalogue import TaggingResult
from mtl_core.pipelines.verdict import accept, read_verdict
from mtl_core.storage.location import Location


def a_night(out, run, tagged, failed, *, first_tried, source="audio"):
    """The tables and the record after a run. `failed` has (track, the run in which it failed first)."""
    rows = [a_failure(track) | {"run_id": run, "first_run_id": first} for track, first in failed]
    night(out, run, [a_tag(track, run=run) for track in tagged], rows)
    record = {"run_id": run, "source": source, "planned": len(tagged) + len(failed), "first_tried": first_tried}
    (out / "runs" / f"{run}.json").write_json(record)


def found(out, *runs):
    verdict = read_verdict(out, runs)
    return verdict and (verdict.run_ids, verdict.failed, verdict.tried, verdict.accepted)


def test_without_a_run_there_is_none(tmp_path):
    assert found(Location(str(tmp_path))) is None


def test_only_tracks_that_are_tried_first_count_and_the_alarm_stays_until_they_are_tagged(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "1", "ab", [("c", "1"), ("d", "1")], first_tried=4)
    assert found(out, "1") == found(out) == (["1"], 2, 4, False)
    a_night(out, "2", "c", [("d", "1")], first_tried=0)  # a retry: one is tagged, one fails again
    assert found(out, "2") == found(out) == (["1"], 1, 4, False)
    a_night(out, "3", "ef", [("d", "1")], first_tried=2)  # the next night: what failed before does not count
    assert found(out, "3") == found(out) == (["3"], 0, 2, False)


def test_all_runs_of_a_command_count_but_those_that_read_the_table(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "1", "", [("a", "1")], first_tried=1)
    a_night(out, "2", "bcd", [("e", "2")], first_tried=4)
    a_night(out, "3", "fghi", [], first_tried=4, source="embeddings")
    a_night(out, "4", "j", [("k", "4")], first_tried=2)
    assert found(out, "2", "3", "4") == (["2", "4"], 2, 6, False)
    assert found(out) == (["4"], 1, 2, False)


def test_a_record_of_version_0_1_and_a_damaged_one(tmp_path, capsys):
    out = Location(str(tmp_path))
    a_night(out, "1", "ab", [("c", None)], first_tried=3)
    (out / "runs" / "1.json").write_json({"run_id": "1", "planned": 3})
    (out / "runs" / "2.json").write_bytes(b"{")
    assert found(out) == (["1"], 1, 3, False)
    assert "2.json is passed over" in capsys.readouterr().err


def test_a_person_accepts_failures_of_one_run(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "1", "", [("a", "1")], first_tried=1)
    verdict = read_verdict(out, [])
    assert verdict is not None
    accept(out, verdict)
    assert found(out) == (["1"], 1, 1, True)
    assert json.loads((tmp_path / "runs/1.accepted.json").read_bytes())["failed"] == 1
    a_night(out, "2", "", [("b", "2")], first_tried=1)
    assert found(out) == (["2"], 1, 1, False)


def status(out, verdict, monkeypatch, *flags):
    monkeypatch.setattr(
        job, "tag_catalogue", lambda *_: TaggingResult(runs=[], already_done=3, forgotten=0, verdict=verdict)
    )
    monkeypatch.setattr(job, "find_model", Location)
    arguments = ["--manifest", f"{out}/m.parquet", "--model", f"{out}/model", "--out", f"{out}", *flags]
    monkeypatch.setattr(sys, "argv", ["tag_catalogue", *arguments])
    with pytest.raises(SystemExit) as ended:
        job.cli.main(job.main, job.Options)
    return ended.value.code


def test_the_status_follows_the_verdict(tmp_path: Path, monkeypatch, capsys):
    out = Location(str(tmp_path))
    a_night(out, "1", "abc", [("d", "1")], first_tried=4)
    assert status(out, read_verdict(out, []), monkeypatch, "--max-failed-share", "0.25") == 0
    assert status(out, read_verdict(out, []), monkeypatch) == 3
    *_, before, last = capsys.readouterr().err.splitlines()
    assert before == (
        "1 of 4 tracks that run 1 tried first fail: 25.0%, --max-failed-share allows 5.0%; --accept-failures ends the "
        "alarm"
    )
    assert last == "done, but too many tracks failed [exit status 3]"
    assert status(out, read_verdict(out, []), monkeypatch, "--accept-failures") == 0
    assert status(out, read_verdict(out, []), monkeypatch) == 0
    assert status(out, None, monkeypatch) == 0
