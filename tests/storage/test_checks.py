"""A location that cannot be used is an InputError before a job starts."""

from pathlib import Path

import pytest
from builders.identities import forget_identity

from mtl_core.errors import InputError
from mtl_core.storage import checks
from mtl_core.storage.location import Location


def test_an_unreachable_store_is_an_input_error_that_names_it(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.check_reachable(Location("/anything"))
    with pytest.raises(InputError, match="no bucket 'nowhere-to-be-found'"):
        checks.check_reachable(Location("s3://nowhere-to-be-found/key"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_identity()
    with pytest.raises(InputError, match=r"cannot be reached at http://127\.0\.0\.1:9"):
        checks.check_reachable(Location("s3://bucket/key"))
    forget_identity()


def test_old_versions_of_objects_are_told_of(bucket: str, tmp_path: Path) -> None:
    assert checks.old_object_versions(Location(str(tmp_path))) is None
    at = Location(f"{bucket}/out")
    assert checks.old_object_versions(at) is None
    name = bucket.removeprefix("s3://")
    for status in ("Enabled", "Suspended"):
        at.filesystem.call_s3("put_bucket_versioning", Bucket=name, VersioningConfiguration={"Status": status})
        assert f"{name} has versioning ({status}): old versions of deleted objects stay" in str(
            checks.old_object_versions(at)
        )


def test_a_folder_that_cannot_be_created_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    checks.check_writable(Location(str(tmp_path / "new" / "folder")))
    assert not (tmp_path / "new").exists()
    for path, folder, message in (
        ("file", True, "file is not a folder"),
        ("file/below", True, "file is not a folder"),
        (".", False, "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            checks.check_writable(Location(str(tmp_path / path)), folder=folder)
