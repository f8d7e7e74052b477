"""S3 filesystem: s3fs with the identity of this process, and deletes that fail where an object stays.

Pickled, it carries no credentials and no session: the process that loads it opens its own.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import s3fs
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession

from mtl_core.storage import identity

CONNECTIONS = 32  # kept open per process; more than a worker's concurrent downloads
KEYS_PER_DELETE = 1000  # S3's limit


class S3FileSystem(s3fs.S3FileSystem):
    """s3fs whose credentials are those of `identity`, renewed as long as the process lives."""

    cachable = False  # `location.open_filesystem` keeps the one of this process

    def __init__(self) -> None:
        session = AioSession()
        if region := identity.open_session().get_config_variable("region"):
            session.set_config_variable("region", region)
        session.register_component("credential_provider", _CurrentCredentials())
        super().__init__(
            session=session,
            use_listings_cache=False,  # writes of other machines must be visible
            config_kwargs={"max_pool_connections": CONNECTIONS} | identity.CLIENT_CONFIG,
        )

    def __reduce__(self) -> tuple[Callable[[], "S3FileSystem"], tuple[()]]:
        return S3FileSystem, ()

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete an object, or with `recursive` all objects below a path.

        s3fs asks for many deletes at once and ignores what S3 says of single keys. Here such a key is deleted again by
        a request of its own, which is retried and raises its error.

        Raises:
            OSError: an object could not be deleted; PermissionError where that is not allowed.
            NotImplementedError: `maxdepth` is given.
        """
        if maxdepth is not None:
            raise NotImplementedError("maxdepth")
        bucket, key, _ = self.split_path(self._strip_protocol(path))
        if not recursive:
            self.rm_file(path)
            return
        paths = self.find(bucket, prefix=f"{key}/" if key else "")
        for first in range(0, len(paths), KEYS_PER_DELETE):
            keys = [{"Key": self.split_path(path)[1]} for path in paths[first : first + KEYS_PER_DELETE]]
            answer = self.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            for error in answer.get("Errors", []):
                self.rm_file(f"{bucket}/{error['Key']}")


class _CurrentCredentials(AioCredentials):  # the base class is what aiobotocore demands
    """The credentials of `identity` at the moment of each request, and their provider."""

    def __init__(self) -> None:
        super().__init__("unused", "unused", method="mtl-core")

    async def load_credentials(self) -> "_CurrentCredentials":
        return self

    async def get_frozen_credentials(self) -> Any:
        """Called for each request. Renewing waits for another service, so that happens in a thread."""
        if identity.must_renew():
            return await asyncio.to_thread(identity.freeze_credentials)
        return identity.freeze_credentials()
