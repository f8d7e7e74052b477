"""Neighbours, candidates and duplicates of a table; what cannot be compared is left out and counted."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.errors import InputError
from mtl_core.pipelines.find_neighbours import NeighbourOptions, find_neighbours
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import commit
from mtl_core.tables.data_files import write_files


def row(track_id: str, vector: np.ndarray | None, trunk: str | None = "new", **columns: object) -> dict[str, object]:
    day = {"new": 2, "old": 1}.get(trunk or "", 3)
    values = {"track_id": track_id, "embedding": vector, "trunk_id": trunk, "duration_s": 100.0}
    return dict.fromkeys(TAGS.names) | values | {"tagged_at": datetime(2026, 1, day, tzinfo=UTC)} | columns


def write_tags(out: Location, rows: list[dict[str, object]]) -> None:
    table = pa.Table.from_pylist(rows, schema=TAGS)
    files = write_files([table], out / "tags", "r", TAGS)
    done = commit.VerifiedRun(
        run_id="r", model_id="m", tagged=table.select(["track_id"]), tags=files, failures=FAILURES.empty_table()
    )
    commit.commit_run(out, done, lambda: None)


def test_the_nearest_tracks_candidates_and_duplicates(root: str, tmp_path: Path) -> None:
    at = Location(root)
    a, b, c = np.eye(96, dtype=np.float32)[:3]
    rows = [
        row("a.mp3", a, artist="A"),
        row("a.ogg", 3 * a + 0.01 * c, artist="A", duration_s=101.5),
        row("cover", a + 0.5 * b, artist=None),
        row("longer", a, artist="A", duration_s=150.0),
        row("b", b, artist="B"),
        row("silent", None),
        row("of-before", a, trunk="old"),
        row("of-0.1", a, trunk=None),
    ]
    write_tags(at / "out", rows)
    summary = find_neighbours(at / "out", at / "near", NeighbourOptions(k=3))
    assert "5 tracks of the trunk new; left out: 1 without sound, 2 of other trunks" in summary
    (at / "near").filesystem.get((at / "near").path + "/neighbours.parquet", str(tmp_path / "n.parquet"))
    (at / "near").filesystem.get((at / "near").path + "/duplicates.parquet", str(tmp_path / "d.parquet"))
    found = {line["track_id"]: line for line in pq.read_table(tmp_path / "n.parquet").to_pylist()}
    assert set(found) == {"a.mp3", "a.ogg", "cover", "longer", "b"}
    assert {near["track_id"] for near in found["a.mp3"]["neighbours"][:2]} == {"a.ogg", "longer"}
    assert found["a.mp3"]["neighbours"][2]["track_id"] == "cover" and found["a.mp3"]["candidates"] is None
    assert found["a.mp3"]["neighbours"][2]["similarity"] == pytest.approx(1 / 1.25**0.5, abs=1e-5)
    (candidate,) = found["cover"]["candidates"]
    assert (candidate["artist"], candidate["neighbours"]) == ("A", 3)
    (pair,) = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert (pair["track_id"], pair["other_track_id"]) == ("a.mp3", "a.ogg")
    assert pair["duration_difference_s"] == pytest.approx(1.5)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    with pytest.raises(InputError, match="no table of tags"):
        find_neighbours(at / "nothing", at / "near", NeighbourOptions())
    write_tags(at / "out", [row("a", np.ones(96), trunk=None)])
    with pytest.raises(InputError, match="no row says which trunk"):
        find_neighbours(at / "out", at / "near", NeighbourOptions())
    write_tags(at / "silent", [row("a", None)])
    with pytest.raises(InputError, match="no row of the newest trunk has an embedding"):
        find_neighbours(at / "silent", at / "near", NeighbourOptions())
    for wrong in ({"k": 0}, {"duplicate_similarity": 0}, {"duplicate_duration_s": -1}):
        with pytest.raises(ValueError, match="must be"):
            NeighbourOptions(**wrong)
