"""Errors of a track, of a command's inputs, and of a run.

A track's failure is data: a `TrackError` becomes one row of the failures table, with a stage, a stable error name from
`ERRORS` and a message. Wrong inputs of a command are an `InputError`: one line and exit status 2, before any work. The
failure of a run is a `RunError`: one line and exit status 1. Another run at work is an `OtherRunError`: exit status 4.
"""

import re
from dataclasses import dataclass

#: stage -> {error: permanent}. Permanent: the same bytes fail again with the same model, so later runs skip the track.
ERRORS: dict[str, dict[str, bool]] = {
    "fetch": {"not_found": False, "forbidden": False, "unavailable": False, "changed": False},
    "decode": {
        "not_audio": True,
        "unsupported": True,
        "corrupt": True,
        "too_short": True,
        "too_large": True,
        "crashed": True,
        "timed_out": False,  # the machine may have been busy
        "out_of_memory": True,
        "killed": False,  # the node's memory ran out, maybe of others
    },
    "features": {"not_finite": True, "out_of_range": True},
    "model": {"failed": False},
}

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # deltalake colours its errors, also in a log file


def one_line(error: BaseException | str) -> str:
    """The message of an error on one line; the name of its class if it has no message."""
    return " ".join(_COLOUR.sub("", str(error)).split()) or type(error).__name__


class InputError(Exception):
    """The arguments or inputs are wrong. The message names the value and what is allowed, in one line."""


class RunError(Exception):
    """The run cannot continue. The same command resumes it. The message is one line."""


class OtherRunError(Exception):
    """Another run is at work on the same folder. The message is one line."""


@dataclass
class TrackError(Exception):
    """This track cannot be tagged."""

    stage: str  # one of ERRORS
    error: str  # one of ERRORS[stage]
    message: str  # details, any text

    def __post_init__(self) -> None:
        if self.error not in ERRORS.get(self.stage, {}):
            raise ValueError(f"error {self.error!r} of stage {self.stage!r}: allowed are {ERRORS}")
        super().__init__(self.stage, self.error, self.message)

    @property
    def permanent(self) -> bool:
        """Whether the same bytes fail again with the same model."""
        return ERRORS[self.stage][self.error]
