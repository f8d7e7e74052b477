"""One identity: what finds the store for a check finds it for a commit, and it outlives its credentials."""

from pathlib import Path

import pyarrow as pa
import pytest
from builders.identities import DELETE, GET, LIST, PUT, Iam, Keys, allowed_below, forget_identity, use_keys, use_profile
from deltalake import DeltaTable, write_deltalake

from mtl_core.errors import InputError
from mtl_core.storage import identity
from mtl_core.storage.checks import check_reachable, check_writable
from mtl_core.storage.location import Location


def test_a_profile_with_keys_and_an_endpoint_serves_checks_and_commits(
    iam: Iam, no_identity: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mtl_core.tables.delta import open_dataset, open_delta, storage_options

    keys, bucket = iam.admin, iam.new_bucket()
    out = Location(f"s3://{bucket}/out")
    use_profile(no_identity, tmp_path, f"endpoint_url = {iam.endpoint}", f"aws_access_key_id = {keys.access_key}",
                f"aws_secret_access_key = {keys.secret_key}")  # fmt: skip
    now = identity.current_identity()
    assert (now.endpoint_url, now.region, now.access_key) == (iam.endpoint, "eu-west-3", keys.access_key)
    assert keys.access_key not in repr(now) and keys.secret_key not in repr(now)
    check_writable(out)
    write_deltalake(f"{out}/t", pa.table({"a": [1]}), storage_options=storage_options(out))
    table = open_delta(out / "t")
    assert table is not None and open_dataset(out / "t", table).to_table()["a"].to_pylist() == [1]


def test_a_token_of_other_keys_is_refused(no_identity: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_profile(no_identity, tmp_path, "aws_access_key_id = a", "aws_secret_access_key = b")
    no_identity.setenv("AWS_SESSION_TOKEN", "stale")
    with pytest.raises(identity.IdentityError, match="AWS_SESSION_TOKEN is set, but not with the keys"):
        identity.current_identity()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("credential_process = echo hello", "Expecting value"),
        ("credential_process = /not/there", "No such file or directory: '/not/there'"),
        ("role_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /not/there", "No such file or directory: '/not/"),
    ],
)
def test_a_source_of_credentials_that_fails_is_refused_in_one_line(
    no_identity: pytest.MonkeyPatch, tmp_path: Path, line: str, message: str
) -> None:
    use_profile(no_identity, tmp_path, line)
    with pytest.raises(InputError, match=f"s3://a/b: the credentials cannot be had: .*{message}"):
        check_reachable(Location("s3://a/b"))


def test_a_profile_may_assume_a_role(iam: Iam, no_identity: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its credentials are temporary, with a token, and nothing but the role's policy holds."""
    from mtl_core.tables.delta import open_dataset, open_delta, storage_options

    bucket, keys = iam.new_bucket(), iam.add_user([("sts:AssumeRole", "*")])
    out, role = Location(f"s3://{bucket}/out"), iam.add_role(allowed_below(bucket, "out"))
    source = (f"aws_access_key_id = {keys.access_key}", f"aws_secret_access_key = {keys.secret_key}")
    use_profile(no_identity, tmp_path, f"endpoint_url = {iam.endpoint}", f"role_arn = {role}", "source_profile = base",
                "[profile base]", f"endpoint_url = {iam.endpoint}", "region = eu-west-3", *source)  # fmt: skip
    check_writable(out)
    now = identity.current_identity()
    assert now.token and now.expires and now.access_key != keys.access_key
    write_deltalake(f"{out}/t", pa.table({"a": [1]}), storage_options=storage_options(out))
    assert open_dataset(out / "t", open_delta(out / "t")).to_table()["a"].to_pylist() == [1]
    with pytest.raises(InputError, match="may not s3:ListBucket on arn:aws:s3:::another"):
        check_reachable(Location("s3://another/out"))
    iam.set_policy(keys.user, [])
    forget_identity()
    with pytest.raises(InputError, match=r"the credentials cannot be had: .*AccessDenied.*AssumeRole"):
        check_writable(out)


@pytest.mark.parametrize(
    ("variables", "endpoint", "region"),
    [
        ({"AWS_REGION": "eu-1", "AWS_DEFAULT_REGION": "eu-2"}, "https://s3.eu-1.amazonaws.com", "eu-1"),
        ({"AWS_DEFAULT_REGION": "eu-2"}, "https://s3.eu-2.amazonaws.com", "eu-2"),
        ({}, "https://s3.amazonaws.com", "us-east-1"),
        ({"AWS_ENDPOINT_URL": "http://all:1"}, "http://all:1", "us-east-1"),
        ({"AWS_ENDPOINT_URL": "http://all:1", "AWS_ENDPOINT_URL_S3": "http://s3:1"}, "http://s3:1", "us-east-1"),
    ],
)  # fmt: skip
def test_the_variables_of_the_environment(
    no_identity: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str, region: str
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", **variables}.items():
        no_identity.setenv(name, value)
    now = identity.current_identity()
    assert (now.endpoint_url, now.region, now.token) == (endpoint, region, None)


def test_an_identity_that_is_not_there_is_one_line(no_identity: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at = Location("s3://bucket/key")
    with pytest.raises(InputError, match="no credentials for S3: set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        check_reachable(at)
    use_profile(no_identity, tmp_path, "credential_process = false")
    with pytest.raises(InputError, match="s3://bucket/key: the credentials cannot be had"):
        check_reachable(at)
    no_identity.setenv("AWS_PROFILE", "another")
    forget_identity()
    with pytest.raises(InputError, match=r"profile \(another\) could not be found"):
        check_reachable(at)


def test_each_missing_permission_is_named_and_nothing_is_left_behind(iam: Iam, no_identity: pytest.MonkeyPatch) -> None:
    bucket = iam.new_bucket()
    out, all_rights = Location(f"s3://{bucket}/out"), allowed_below(bucket, "out")
    keys = iam.add_user(all_rights)
    use_keys(no_identity, iam.endpoint, keys)
    check_writable(out)
    for missing in all_rights:
        iam.set_policy(keys.user, all_rights - {missing})
        what, on = missing
        if missing in {(PUT, f"arn:aws:s3:::{bucket}/out"), (DELETE, f"arn:aws:s3:::{bucket}/out")}:
            check_writable(out)  # of the folder's own name no object is ever written
            continue
        with pytest.raises(InputError) as caught:
            check_writable(out)
        assert str(caught.value) == f"s3://{bucket}/out: the identity of this process may not {what} on {on}"
    iam.set_policy(keys.user, {(LIST, f"arn:aws:s3:::{bucket}")})
    with pytest.raises(InputError, match=rf"may not {GET} on \S+/m.parquet, {PUT} on \S+/m.parquet"):
        check_writable(Location(f"s3://{bucket}/m.parquet"), folder=False)
    assert iam.keys_in(bucket) == []


def test_wrong_keys_are_not_a_missing_permission(iam: Iam, no_identity: pytest.MonkeyPatch) -> None:
    use_keys(no_identity, iam.endpoint, Keys(user="", access_key="AKIAXXXXXXXXXXXXXXXX", secret_key="wrong"))
    with pytest.raises(InputError, match=rf"access denied at {iam.endpoint} \(.*InvalidAccessKeyId.*check the cred"):
        check_reachable(Location(f"s3://{iam.new_bucket()}/out"))


def test_an_object_that_cannot_be_deleted_is_an_error(iam: Iam, no_identity: pytest.MonkeyPatch) -> None:
    """s3fs ignores what S3 says of single keys."""
    bucket = iam.new_bucket()
    out, rights = Location(f"s3://{bucket}/out"), allowed_below(bucket, "out")
    keys = iam.add_user({right for right in rights if right[0] != DELETE})
    use_keys(no_identity, iam.endpoint, keys)
    for name in ("a", "b/c"):
        (out / name).write_bytes(b"data")
    with pytest.raises(PermissionError):
        out.delete_tree()
    iam.set_policy(keys.user, rights)
    out.delete_tree()
    out.delete_tree()  # nothing is there
    assert iam.keys_in(bucket) == []


def test_an_open_filesystem_travels_without_credentials(no_identity: pytest.MonkeyPatch, iam: Iam) -> None:
    import pickle

    use_keys(no_identity, iam.endpoint, iam.admin)
    bucket = iam.new_bucket()
    data = pickle.dumps(Location(f"s3://{bucket}").filesystem)
    assert iam.admin.access_key.encode() not in data and iam.admin.secret_key.encode() not in data
    pickle.loads(data).pipe_file(f"{bucket}/key", b"data")
    assert iam.keys_in(bucket) == ["key"]


def test_deltalake_alone_finds_another_identity(iam: Iam, no_identity: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where this fails, deltalake has learnt `endpoint_url`, and `storage_options` can go."""
    bucket, keys = iam.new_bucket(), iam.admin
    use_profile(no_identity, tmp_path, f"endpoint_url = {iam.endpoint}", f"aws_access_key_id = {keys.access_key}",
                f"aws_secret_access_key = {keys.secret_key}")  # fmt: skip
    no_identity.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # it asks Amazon, wherever the test runs
    options = {"allow_http": "true", "max_retries": "0", "timeout": "2s", "connect_timeout": "1s"}
    with pytest.raises(OSError):
        write_deltalake(f"s3://{bucket}/t", pa.table({"a": [1]}), storage_options=options)
    assert not DeltaTable.is_deltatable(f"s3://{bucket}/t", options | {"AWS_ENDPOINT_URL": iam.endpoint,
        "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key})  # fmt: skip
