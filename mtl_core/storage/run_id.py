"""Run id: the name of a run. It begins with the time at which the run was planned, so names sort by time."""

import uuid
from datetime import UTC, datetime

_TIME = "%Y%m%dT%H%M%SZ"


def new_run_id() -> str:
    """A name for a run that is planned now, such as 20261128T011821Z-89bc29."""
    return f"{datetime.now(UTC):{_TIME}}-{uuid.uuid4().hex[:6]}"


def planned_at_s(run_id: str) -> float:
    """When a run was planned, in seconds since 1970. Raises ValueError where the name is none of `new_run_id`."""
    return datetime.strptime(run_id.partition("-")[0], _TIME).replace(tzinfo=UTC).timestamp()


def days_between(first: str, last: str) -> float:
    """Days from the planning of one run to that of another. Raises ValueError where a name is none of `new_run_id`."""
    return (planned_at_s(last) - planned_at_s(first)) / 86_400
