"""The tables outlive the credentials with which they were opened."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from builders.identities import Iam, Keys, allowed_below, use_profile
from nights import a_tag, table_rows

from mtl_core.storage.location import Location
from mtl_core.tables.data_files import write_files
from mtl_core.tables.delta import TABLE_SCHEMAS, commit_actions, open_dataset, open_to_write


def test_credentials_that_expire_in_a_run_are_renewed(
    iam: Iam, no_identity: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the start are worth nothing when a dataset is scanned, an object deleted, and a run committed."""

    def hand_out(keys: Keys) -> None:
        """Credentials that live for 14 minutes: botocore renews those that have less than 15."""
        end = datetime.now(UTC) + timedelta(minutes=14)
        answer = {"Version": 1, "AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key,
                  "Expiration": end.isoformat()}  # fmt: skip
        (tmp_path / "credentials.json").write_text(json.dumps(answer))

    bucket = iam.new_bucket()
    out, before, after = Location(f"s3://{bucket}/out"), *(iam.add_user(allowed_below(bucket, "out")) for _ in range(2))
    hand_out(before)
    use_profile(no_identity, tmp_path, f"endpoint_url = {iam.endpoint}",
                f"credential_process = cat {tmp_path}/credentials.json")  # fmt: skip
    schema = TABLE_SCHEMAS["tags"]
    tags = pa.Table.from_pylist([a_tag("a")], schema=schema)
    table = open_to_write(out, "tags", lambda: None)
    commit_actions(table, [], write_files([tags], out / "tags", "one", schema), lambda: None, about={})
    table = open_to_write(out, "tags", lambda: None)

    hand_out(after)
    iam.remove_key(before)
    assert open_dataset(out / "tags", table).to_table()["track_id"].to_pylist() == ["a"]
    commit_actions(table, [], write_files([tags], out / "tags", "two", schema), lambda: None, about={})
    assert len(table_rows(out, "tags")) == 2
    out.delete_tree()
    assert not iam.keys_in(bucket)
    with pytest.raises(OSError):  # what deltalake does with the options of the start
        table.update_incremental()
