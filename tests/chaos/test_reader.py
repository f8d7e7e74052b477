"""A reader reads the tables again and again while ten nights are committed."""

import threading
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import commit, delta

N, NIGHTS = 1_000, 10


def night(root: Location, number: int) -> None:
    """Commit a night of two thirds of the tracks, of which a third fails; each night takes other tracks."""
    planned = [track for track in range(N) if (track + number) % 3]
    failing = {track for track in planned if (track // 3 + number) % 3 == 0}
    row = {"run_id": str(number), "model_id": "m", "content_id": str(number)}
    tags = [
        row | {"track_id": f"{track:05}", "tagged_at": datetime.now(UTC)} for track in planned if track not in failing
    ]
    failed_rows = [row | {"track_id": f"{track:05}", "permanent": True, "attempts": 1} for track in sorted(failing)]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(tags, schema=TAGS), buffer)
    staged = root / "staged" / f"{number}.parquet"
    staged.write_bytes(memoryview(buffer.getvalue()))
    failures = pa.Table.from_pylist(failed_rows, schema=FAILURES)
    outcome = commit.verify_and_merge(
        [(staged, len(tags))],
        pa.table({"track_id": [f"{track:05}" for track in planned]}),
        failures,
        root,
        run_id=str(number),
        model_id="m",
    )
    commit.commit_run(root, outcome, lambda: None)


@pytest.mark.parametrize("root", ["disk", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_reader_never_sees_half_a_commit_a_duplicate_or_a_gap(root: str) -> None:
    at = Location(root)
    night(at, 0)
    night(at, 1)
    expected = {f"{track:05}" for track in range(N)}
    states: set[tuple[int, int]] = set()
    n_reads, done, errors = 0, threading.Event(), []

    def write() -> None:
        try:
            for number in range(2, 2 + NIGHTS):
                night(at, number)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        tags, failures = delta.read_snapshot(at)
        assert tags is not None and failures is not None
        states.add((tags.version(), failures.version()))
        rows = {name: table.to_pyarrow_table() for name, table in (("tags", tags), ("failures", failures))}
        ids = {name: table["track_id"].to_pylist() for name, table in rows.items()}
        assert all(len(set(track_ids)) == len(track_ids) for track_ids in ids.values()), "a track has two rows"
        assert set(ids["tags"]) | set(ids["failures"]) == expected, "a track is in no table"
        newest = max(map(int, rows["tags"]["run_id"].to_pylist()))
        n_newest = sum(run == str(newest) for run in rows["tags"]["run_id"].to_pylist())
        planned = [track for track in range(N) if (track + newest) % 3]
        assert n_newest == sum((track // 3 + newest) % 3 != 0 for track in planned), "a night is visible in part"
        n_reads += 1
    writer.join()
    assert not errors, errors
    print(f"{n_reads} reads, {len(states)} different states, {NIGHTS} nights, {N} tracks")
    assert n_reads >= NIGHTS
