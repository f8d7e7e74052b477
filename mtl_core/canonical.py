"""Canonical JSON: one string for equal values, for hashes that identify a front end, a model or a run.

The strings are part of identities on users' disks: a change here changes every hash.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, characters outside ASCII as they are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_sha256(value: Any) -> str:
    """SHA-256 of `canonical_json(value)` as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def run_sha256(value: Any) -> str:
    """SHA-256 (hexadecimal) of version 0.1's JSON, with spaces and ASCII alone, so that its runs can be resumed."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
