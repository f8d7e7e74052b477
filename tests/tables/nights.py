"""Builders for the tests of the tables: manifests, rows, and a night's run without the work of its workers."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mtl_core.schema import FAILURES, MANIFEST, TAGS
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.tables import commit, delta

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def manifest(ids: str, content: str = "c") -> pa.Table:
    rows = [dict.fromkeys(MANIFEST.names) | {"track_id": i, "uri": f"/{i}", "content_id": content} for i in ids]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def a_tag(track_id: str, model: str = "m", content: str | None = "c", run: str = "r") -> dict[str, Any]:
    top = [{"label": "x", "probability": 0.75}, {"label": "y", "probability": 0.25}]
    return dict.fromkeys(TAGS.names) | {
        "track_id": track_id, "uri": f"/{track_id}", "content_id": content, "model_id": model, "run_id": run,
        "artist": "x", "artist_confidence": 0.75, "artist_top": top, "embedding": [0.5] * 96, "tagged_at": NOW,
    }  # fmt: skip


def a_failure(track_id: str, model: str = "m", permanent: bool = True, attempts: int = 1) -> dict[str, Any]:
    return dict.fromkeys(FAILURES.names) | {
        "track_id": track_id, "uri": f"/{track_id}", "content_id": "c", "stage": "decode", "error": "corrupt",
        "message": "no", "attempts": attempts, "permanent": permanent, "model_id": model, "run_id": "r", "failed_at":
        NOW,
    }  # fmt: skip


def nothing() -> None:
    """A `check_lease` that passes."""


def stage(root: Location, run: str, tags: list[dict[str, Any]], schema: pa.Schema) -> list[tuple[Location, int]]:
    """Write each row of tags as the file of a shard."""
    staged = []
    for row in tags:
        file = root / "_run" / run / f"{row['track_id'].replace('/', '-')}.parquet"
        file.write_bytes(to_bytes(pa.Table.from_pylist([row], schema=schema)))
        staged.append((file, 1))
    return staged


def night(root: Location, run: str, tagged: list[dict[str, Any]], failed: list[dict[str, Any]], model: str = "m",
          check_lease: Callable[[], None] = nothing) -> None:  # fmt: skip
    """What a run does after its work, with shards of one track."""
    staged = stage(root, run, tagged, delta.TABLE_SCHEMAS["tags"])
    planned = pa.table({"track_id": [row["track_id"] for row in [*tagged, *failed]]})
    failures = pa.Table.from_pylist(failed, schema=delta.TABLE_SCHEMAS["failures"])
    verified = commit.verify_and_merge(staged, planned, failures, root, run_id=run, model_id=model)
    commit.commit_run(root, verified, check_lease)


def table_rows(root: Location, name: str) -> list[dict[str, Any]]:
    table = delta.open_table(root, name)
    assert table is not None
    return table.to_pyarrow_table().to_pylist()


def state(root: Location) -> dict[str, str]:
    """{track_id: "tag RUN" or "failure RUN"}; fails if a track has two rows."""
    rows = [(row["track_id"], f"tag {row['run_id']}") for row in table_rows(root, "tags")]
    rows += [(row["track_id"], f"failure {row['run_id']}") for row in table_rows(root, "failures")]
    assert len(rows) == len(dict(rows)), "a track has two rows"
    return dict(rows)
