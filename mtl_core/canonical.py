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
    """SHA-256 (hexadecimal) for the ids of extractions and trainings.

    The ids of version 0.1 are hashes of JSON with spaces and ASCII alone. This form is kept, so that runs of that
    version can be resumed.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
