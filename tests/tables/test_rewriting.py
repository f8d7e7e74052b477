"""Only the files that contain superseded tracks are read and rewritten."""

import json
from pathlib import Path
from typing import Any

import pytest
from nights import a_tag, night, state

from mtl_core.storage.location import Location
from mtl_core.tables import commit, data_files, rewriting


def test_new_tracks_rewrite_nothing(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    night(out, "1", [a_tag("a")], [])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("part-*")}
    night(out, "2", [a_tag("b")], [])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    actions = [
        json.loads(line) for line in (tmp_path / "tags/_delta_log/00000000000000000002.json").read_text().splitlines()
    ]
    assert [next(iter(action)) for action in actions if "add" in action or "remove" in action] == ["add"]


def test_only_files_whose_range_contains_a_track_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, runs_read = Location(str(tmp_path)), []
    night(out, "1", [a_tag(i) for i in "abc"], [])
    night(out, "2", [a_tag(i) for i in "mno"], [])
    night(out, "3", [a_tag(i) for i in "xyz"], [])
    read_track_ids = data_files.read_track_ids

    def record(root: Location, files: list[data_files.DataFile]) -> Any:
        runs_read.extend(file.path.split("-")[1] for file in files)
        return read_track_ids(root, files)

    monkeypatch.setattr(rewriting, "read_track_ids", record)
    monkeypatch.setattr(commit, "read_track_ids", record)
    night(out, "4", [a_tag("n", run="4"), a_tag("d", run="4")], [])
    assert runs_read == ["4", "2"], "its own to verify them, and the one with n; d lies between two files"
    assert state(out)["n"] == "tag 4" and len(state(out)) == 10
