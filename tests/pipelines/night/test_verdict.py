"""The alarm: of the tracks that a run tried first, too many fail. It ends when they are tagged, or a person accepts."""

import json
import sys
from pathlib import Path

import pytest
from tables.nights import a_failure, a_tag, night

from mtl_core.jobs import tag_catalogue as job
from mtl_core.pipelines.night.verdict import accept, note_told, read_verdict
from mtl_core.pipelines.tag_catalogue import TaggingResult
from mtl_core.storage.location import Location


def a_night(out, run, tagged, failed, *, first_tried, source="audio"):
    """The tables and the record after a run. `failed` has (track, the run in which it failed first)."""
    rows = [a_failure(track) | {"run_id": run, "first_run_id": first} for track, first in failed]
    night(out, run, [a_tag(track, run=run) for track in tagged], rows)
    record = {"run_id": run, "source": source, "planned": len(tagged) + len(failed), "first_tried": first_tried}
    (out / "runs" / f"{run}.json").write_json(record)


def told(out):
    """The verdict, of which a status tells."""
    verdict = read_verdict(out)
    if verdict is None:
        return None
    note_told(out, verdict)
    return verdict.run_ids, verdict.failed, verdict.tried, verdict.accepted


def test_without_a_run_there_is_none(tmp_path):
    assert told(Location(str(tmp_path))) is None


def test_only_tracks_that_are_tried_first_count_and_the_alarm_stays_until_they_are_tagged(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "1", "ab", [("c", "1"), ("d", "1")], first_tried=4)
    assert told(out) == told(out) == (["1"], 2, 4, False)
    a_night(out, "2", "c", [("d", "1")], first_tried=0)  # a retry: one is tagged, one fails again
    assert told(out) == told(out) == (["1"], 1, 4, False)
    a_night(out, "3", "ef", [("d", "1")], first_tried=2)  # the next night: what failed before does not count
    assert told(out) == told(out) == (["3"], 0, 2, False)


def test_runs_that_no_status_has_told_of_count_together_but_those_that_read_the_table(tmp_path):
    """A command that resumes a run and then makes another; or one that was killed after a commit, and the next."""
    out = Location(str(tmp_path))
    a_night(out, "1", "", [("a", "1")], first_tried=1)
    assert told(out) == (["1"], 1, 1, False)
    a_night(out, "2", "bcd", [("e", "2")], first_tried=4)
    a_night(out, "3", "fghi", [], first_tried=4, source="embeddings")
    a_night(out, "4", "j", [("k", "4")], first_tried=2)
    assert told(out) == told(out) == (["2", "4"], 2, 6, False)
    a_night(out, "5", "l", [], first_tried=1)
    assert told(out) == (["5"], 0, 1, False)


def test_many_retries_do_not_hide_the_run_that_is_judged(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "100", "a", [("b", "100")], first_tried=2)
    assert told(out) == (["100"], 1, 2, False)
    for run in range(101, 161):
        (out / "runs" / f"{run}.json").write_json({"run_id": str(run), "source": "audio", "first_tried": 0})
    assert told(out) == (["100"], 1, 2, False)
    (out / "runs" / "100.json").delete()  # a takedown does so
    assert told(out) == (["100"], 1, 2, False)


def test_a_record_of_version_0_1_and_a_damaged_one(tmp_path, capsys):
    out = Location(str(tmp_path))
    a_night(out, "1", "ab", [("c", None)], first_tried=3)
    (out / "runs" / "1.json").write_json({"run_id": "1", "planned": 3})
    (out / "runs" / "2.json").write_bytes(b"{")
    assert told(out) == (["1"], 1, 3, False)
    assert "2.json is passed over" in capsys.readouterr().err


def test_a_person_accepts_failures_of_one_run(tmp_path):
    out = Location(str(tmp_path))
    a_night(out, "1", "", [("a", "1")], first_tried=1)
    verdict = read_verdict(out)
    assert verdict is not None
    accept(out, verdict)
    assert told(out) == (["1"], 1, 1, True)
    assert json.loads((tmp_path / "runs/1.accepted.json").read_bytes())["failed"] == 1
    a_night(out, "2", "", [("b", "2")], first_tried=1)
    assert told(out) == (["2"], 1, 1, False)


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
    assert status(out, read_verdict(out), monkeypatch, "--max-failed-share", "0.25") == 0
    assert status(out, read_verdict(out), monkeypatch) == 3
    *_, before, last = capsys.readouterr().err.splitlines()
    assert before == (
        "1 of 4 tracks that run 1 tried first fail: 25.0%, --max-failed-share allows 5.0%; --accept-failures ends the "
        "alarm"
    )
    assert last == "done, but too many tracks failed [exit status 3]"
    assert status(out, read_verdict(out), monkeypatch, "--accept-failures") == 0
    assert status(out, read_verdict(out), monkeypatch) == 0
    assert status(out, None, monkeypatch) == 0
