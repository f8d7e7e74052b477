"""Pipelines: one file a job. This room is the only one that knows Ray."""

import os

if not os.environ.get("RAY_ADDRESS"):
    # Ray reads this when it is imported. A local Ray has no autoscaler whose events a user could act on.
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
