"""Identity: as whom this process talks to S3, and at which endpoint and region.

One botocore session finds all three, the way the AWS command line does: environment variables, `AWS_PROFILE` with keys,
SSO, `credential_process`, a role to assume or an `endpoint_url`, a web identity (IRSA), a container's or an instance's
role. Every client of S3 takes them from here, so a check and a commit are never two identities. `AWS_REGION` goes
before `AWS_DEFAULT_REGION`, as in deltalake; botocore alone ignores it.

Credentials that expire are renewed by botocore when they have less than 15 minutes left. What `current_identity`
returns is therefore valid for 10 minutes or more, if the credentials live as long. A client that cannot renew them
takes new ones for each transaction.
"""

import functools
import os
from dataclasses import dataclass, field
from typing import Any

from mtl_core.errors import one_line

#: Of every client of S3 but `open_client`.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
#: Attempts per request, with exponential backoff and jitter. 5xx, throttling, resets and timeouts are retried; 403 and
#: 404 are not.
ATTEMPTS = 8
#: The same as arguments of botocore's `Config`.
CLIENT_CONFIG: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": READ_TIMEOUT_S,
    "retries": {"mode": "standard", "max_attempts": ATTEMPTS},
}
CHECK_TIMEOUT_S = 5
CHECK_ATTEMPTS = 3  # enough for a store that fails now and then, few enough to give up on a dead one within 30 s
ALLOWED = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with the role of an instance or pod"


class IdentityError(OSError):
    """There are no credentials, or the configuration of S3 is wrong. The message is one line without any credential."""


@dataclass(frozen=True, kw_only=True)
class S3Identity:
    """Credentials of this moment, and where they are used. Its `repr` shows no credential."""

    endpoint_url: str  # http://… or https://…, without a bucket: buckets are in the path
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)  # of temporary credentials
    expires: bool  # whether the next identity can have other credentials


@functools.lru_cache
def open_session() -> Any:
    """The botocore session of this process. Raises IdentityError if the profile of `AWS_PROFILE` does not exist."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    session = botocore.session.Session()
    if region := os.environ.get("AWS_REGION"):
        session.set_config_variable("region", region)
    try:
        session.get_scoped_config()
    except BotoCoreError as error:  # the profile or a file of profiles
        raise IdentityError(f"{one_line(error)}: {ALLOWED}") from None
    return session


@functools.lru_cache
def open_client() -> Any:
    """A botocore client of S3 with this identity, for checks: their answer is needed within seconds.

    Raises:
        IdentityError: there are no credentials, or the endpoint or the region is wrong.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries = {"mode": "standard", "total_max_attempts": CHECK_ATTEMPTS}
    config = Config(connect_timeout=CHECK_TIMEOUT_S, read_timeout=CHECK_TIMEOUT_S, retries=retries)
    find_credentials()  # otherwise the client would look for them, and its errors are of many kinds
    try:
        return open_session().create_client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise IdentityError(f"the configuration of S3 is wrong: {one_line(error)}") from None


def find_credentials() -> Any:
    """The credentials of the session, a `botocore.credentials.Credentials` that renews itself where it expires.

    Raises:
        IdentityError: there are none, or their source fails.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    session = open_session()
    try:
        credentials = session.get_credentials()
    except (BotoCoreError, ClientError, OSError, ValueError) as error:  # the last two: a program, a file or its content
        raise IdentityError(f"the credentials cannot be had: {one_line(error)}") from None
    if credentials is None:
        raise IdentityError(f"there are no credentials for S3: {ALLOWED}")
    return credentials


def must_renew() -> bool:
    """Whether the next `freeze_credentials` finds or renews credentials, which may take seconds."""
    from botocore.credentials import RefreshableCredentials

    credentials = find_credentials()
    return isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed()


def freeze_credentials() -> Any:
    """The credentials of this moment: `access_key`, `secret_key` and `token`. Raises IdentityError as above."""
    from botocore.exceptions import BotoCoreError, ClientError

    credentials = find_credentials()
    try:
        return credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError, OSError, ValueError, RuntimeError) as error:  # the last: these expired, too
        raise IdentityError(f"the credentials cannot be had: {one_line(error)}") from None


def current_identity() -> S3Identity:
    """The identity of this moment; nothing is requested unless credentials have to be found or renewed.

    Raises:
        IdentityError: there are no credentials, they cannot be renewed, or a token of others is in the environment.
    """
    from botocore.credentials import RefreshableCredentials

    frozen, meta = freeze_credentials(), open_client().meta
    if not frozen.token and os.environ.get("AWS_SESSION_TOKEN"):
        raise IdentityError(
            "AWS_SESSION_TOKEN is set, but not with the keys that are used: deltalake sends it, so unset it"
        )
    return S3Identity(
        endpoint_url=meta.endpoint_url,
        region="us-east-1" if meta.region_name == "aws-global" else meta.region_name,
        access_key=frozen.access_key,
        secret_key=frozen.secret_key,
        token=frozen.token,
        expires=isinstance(find_credentials(), RefreshableCredentials),
    )
