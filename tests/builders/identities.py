"""Identities for S3: users of moto's IAM with a policy, and what a change of the environment leaves behind."""

import contextlib
import json
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from builders.credentials import NEVER_SHOWN
from builders.moto import moto_server
from mtl_core.storage import identity, location

LIST, GET, PUT, DELETE = "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"


def forget_identity() -> None:
    """Let this process find its identity anew, after a test has changed the AWS variables."""
    for cached in (identity.open_session, identity.open_client, location.open_filesystem):
        cached.cache_clear()


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The access key of a user."""

    user: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables of these keys."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


class Iam:
    """A server of moto that enforces policies, and its administrator."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, session = endpoint, botocore.session.Session()
        free = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nobody"}
        self._iam = session.create_client("iam", **free, **nobody)
        keys = self.add_user([("*", "*")])
        request = urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()  # from now on
        admin = {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}
        self.admin, self._iam = keys, session.create_client("iam", **free, **admin)
        self.s3 = session.create_client("s3", **free, **admin)

    def add_user(self, allowed: Iterable[tuple[str, str]]) -> Keys:
        """A new user that may do these actions on these resources (ARNs)."""
        name = f"user-{uuid.uuid4().hex[:8]}"
        self._iam.create_user(UserName=name)
        self.set_policy(name, allowed)
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        NEVER_SHOWN.update((key["AccessKeyId"], key["SecretAccessKey"]))
        return Keys(user=name, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])

    def add_role(self, allowed: Iterable[tuple[str, str]]) -> str:
        """The ARN of a new role that may do these actions, and that every user may assume whose policy says so."""
        name = f"role-{uuid.uuid4().hex[:8]}"
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = self._iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]
        self._iam.put_role_policy(RoleName=name, PolicyName="of-the-test", PolicyDocument=_document(allowed))
        return str(role["Arn"])

    def set_policy(self, user: str, allowed: Iterable[tuple[str, str]]) -> None:
        """Replace what a user may do."""
        self._iam.put_user_policy(UserName=user, PolicyName="of-the-test", PolicyDocument=_document(allowed))

    def remove_key(self, keys: Keys) -> None:
        """Let the keys be worth nothing any more, as if they had expired."""
        self._iam.delete_access_key(UserName=keys.user, AccessKeyId=keys.access_key)

    def new_bucket(self) -> str:
        """The name of a new bucket."""
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.s3.create_bucket(Bucket=name)
        return name

    def keys_in(self, bucket: str) -> list[str]:
        """The keys of all objects of a bucket, up to 1000."""
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def _document(allowed: Iterable[tuple[str, str]]) -> str:
    """A policy that allows these actions on these resources, and nothing if there are none."""
    statements: list[Any] = [{"Effect": "Allow", "Action": what, "Resource": on} for what, on in allowed]
    nothing = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": statements or [nothing]})


def allowed_below(bucket: str, folder: str) -> set[tuple[str, str]]:
    """Everything below a folder of a bucket, and its name."""
    arn = f"arn:aws:s3:::{bucket}"
    on_objects = {(what, f"{arn}/{folder}{below}") for what in (GET, PUT, DELETE) for below in ("", "/*")}
    return {(LIST, arn), *on_objects}


def use_profile(patched: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """Let this process use a profile of these lines, in a file of its own."""
    (folder / "config").write_text("\n".join(["[profile nightly]", "region = eu-west-3", *lines]) + "\n")
    patched.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    patched.setenv("AWS_PROFILE", "nightly")
    forget_identity()


def use_keys(patched: pytest.MonkeyPatch, endpoint: str, keys: Keys) -> None:
    """Let this process and its children use these keys."""
    for name, value in {"AWS_ENDPOINT_URL": endpoint, **keys.environment}.items():
        patched.setenv(name, value)
    forget_identity()


@contextlib.contextmanager
def iam_server() -> Iterator[Iam]:
    """A new server of moto that enforces policies."""
    with moto_server() as endpoint:
        yield Iam(endpoint)
