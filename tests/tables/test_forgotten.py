"""OUT/forgotten.parquet names no track, and later calls recognise them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nights import manifest, nothing

from mtl_core.errors import InputError, RunError
from mtl_core.schema import FORGOTTEN
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.tables import forgotten, planning


def ids(*names: str) -> pa.Table:
    return pa.table({"track_id": pa.array(names, pa.string())})


def found(root: Location, *names: str) -> list[str]:
    return sorted(forgotten.find(ids(*names), root)["track_id"].to_pylist())


def test_forgotten_tracks_are_recognised_until_they_are_allowed_again(root: str) -> None:
    out = Location(root)
    assert found(out, "a") == [], "there is no file"
    assert forgotten.add(out, ids("a", "é/ö", "a"), nothing) == 2
    assert forgotten.add(out, ids("a", "b"), nothing) == 1
    assert found(out, "a", "b", "c", "é/ö") == ["a", "b", "é/ö"]
    assert forgotten.remove(out, ids("a", "x"), nothing) == 1
    assert found(out, "a", "b", "c", "é/ö") == ["b", "é/ö"]
    assert forgotten.remove(out, ids("b", "é/ö"), nothing) == 2
    assert found(out, "a", "b") == []
    assert forgotten.add(out, ids("b"), nothing) == 1


def test_the_file_has_sorted_hashes_and_no_id(tmp_path: Path) -> None:
    names = [f"artist/album/track-{number:04}.flac" for number in range(100)]
    forgotten.add(Location(str(tmp_path / "1")), ids(*names), nothing)
    forgotten.add(Location(str(tmp_path / "2")), ids(*names), nothing)
    first, second = (tmp_path / number / forgotten.FILE for number in "12")
    assert b"track-" not in first.read_bytes()
    rows = pq.read_table(first)
    assert rows.schema.equals(FORGOTTEN) and len(rows) == 100
    hashes = rows["track_hash"].to_pylist()
    assert hashes == sorted(hashes)
    assert not set(hashes) & set(pq.read_table(second)["track_hash"].to_pylist()), "each file has a salt of its own"


@pytest.mark.parametrize("content", ["damaged", "without salt"])
def test_a_file_that_cannot_be_read_stops_a_night(tmp_path: Path, content: str) -> None:
    out = Location(str(tmp_path))
    (out / forgotten.FILE).write_bytes(b"no Parquet" if content == "damaged" else to_bytes(FORGOTTEN.empty_table()))
    with pytest.raises(InputError, match=r"forgotten.parquet.* restore it from a copy"):
        planning.plan_tracks(manifest("ab"), out, "m", retry_failed=False)


def test_nothing_is_written_without_the_lease_or_after_another_program(tmp_path: Path) -> None:
    out = Location(str(tmp_path))

    def lost() -> None:
        raise LeaseLostError("taken over")

    with pytest.raises(LeaseLostError):
        forgotten.add(out, ids("a"), lost)
    assert not (out / forgotten.FILE).exists()
    with pytest.raises(RunError, match="another program"):
        forgotten.add(out, ids("a"), lambda: forgotten.add(out, ids("b"), nothing) and None)
    assert found(out, "a", "b") == ["b"]


def test_a_night_skips_forgotten_tracks_also_those_that_failed(root: str) -> None:
    out = Location(root)
    forgotten.add(out, ids("b", "d"), nothing)
    for retry_failed in (False, True):
        plan = planning.plan_tracks(manifest("abcd"), out, "m", retry_failed=retry_failed)
        assert plan.to_table()["track_id"].to_pylist() == ["a", "c"]
