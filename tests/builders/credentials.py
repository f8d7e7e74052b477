"""Credentials of the tests, and the search for them: in all output that tests capture, and in all files they leave."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: Of the S3 server of the tests. Its secret has characters that a URL or JSON may write in another way.
S3_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETESTS000001", "AWS_SECRET_ACCESS_KEY": "secret/of+the=tests/4f9c1b7ad2e05386"}
#: Whatever must never be shown. Builders that make others add them.
NEVER_SHOWN = set(S3_KEYS.values())
_TEXTS = (".json", ".jsonl", ".md", ".html", ".txt", ".log", ".csv", ".toml", ".prom", "")  # the others are compressed


def assert_hidden(shown: str | bytes | None, where: object) -> None:
    """Check that a text has none of the credentials in it."""
    data = shown.encode(errors="replace") if isinstance(shown, str) else shown or b""
    for credential in NEVER_SHOWN:
        assert credential.encode() not in data, f"a credential of the tests is in {where}"


def watch_output(patched: pytest.MonkeyPatch) -> None:
    """Check all that a test captures: of its child processes that are Python's or Ray's, and of its own."""
    programs = Path(sys.executable).parent
    communicate, read = subprocess.Popen.communicate, pytest.CaptureFixture.readouterr

    def communicate_and_check(process: Any, *arguments: Any, **named: Any) -> Any:
        output = communicate(process, *arguments, **named)
        if Path(process.args[0]).parent == programs:
            for stream in output:
                assert_hidden(stream, f"the output of {process.args}")
        return output

    def read_and_check(fixture: Any) -> Any:
        output = read(fixture)
        for stream in output:
            assert_hidden(stream, "the output of this process")
        return output

    patched.setattr(subprocess.Popen, "communicate", communicate_and_check)
    patched.setattr(pytest.CaptureFixture, "readouterr", read_and_check)


def assert_hidden_in_files(folder: Path) -> None:
    """Check the text files below a folder, but those with which a test configures an identity."""
    for file in folder.rglob("*"):
        if file.suffix in _TEXTS and file.name not in ("config", "credentials.json") and file.is_file():
            assert_hidden(file.read_bytes(), file)


def assert_hidden_in_objects(endpoint: str) -> None:
    """Check the texts among the objects of a server."""
    for name, data in _objects(endpoint):
        assert_hidden(data, name)


def _objects(endpoint: str) -> Iterator[tuple[str, bytes]]:
    import botocore.session

    names = {"aws_access_key_id": S3_KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": "-"}
    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1", **names)
    for bucket in client.list_buckets()["Buckets"]:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for entry in page.get("Contents", []):
                if Path(entry["Key"]).suffix in _TEXTS:
                    of = {"Bucket": bucket["Name"], "Key": entry["Key"]}
                    yield f"s3://{of['Bucket']}/{of['Key']}", client.get_object(**of)["Body"].read()
