"""Identities for S3: users of moto's IAM with a policy, and what a change of the environment leaves behind."""

from mtl_core.storage import identity, location


def forget_identity() -> None:
    """Let this process find its identity anew, after a test has changed the AWS variables."""
    for cached in (identity.open_session, identity.open_client, location.open_filesystem):
        cached.cache_clear()
