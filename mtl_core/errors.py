"""Failure: what becomes of a track, or of a command, that cannot be worked on.

A track's failure is data (`TrackError` -> one row of the failures table): a stage, a stable error name from `ERRORS`,
and a sentence for people. A command's failure is an `InputError`: one line and exit status 2, before any work; a run's
is a `RunError`: one line and exit status 1.
"""

from dataclasses import dataclass

#: stage -> {error: permanent}. Permanent: the same bytes under the same model fail again, so a later night leaves the
#: track alone.
ERRORS: dict[str, dict[str, bool]] = {
    "fetch": {"not_found": False, "forbidden": False, "unavailable": False, "changed": False},
    "decode": {
        "not_audio": True,
        "unsupported": True,
        "corrupt": True,
        "too_short": True,
        "too_large": True,
        "crashed": True,
        "timed_out": False,  # a busy machine can be the cause
        "out_of_memory": True,
    },
    "features": {"not_finite": True},
    "model": {"failed": False},
}


def one_line(error: BaseException | str) -> str:
    """The message of an error on one line; the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


class InputError(Exception):
    """The arguments or inputs are wrong: the message names the value and what is allowed, in one line."""


class RunError(Exception):
    """The run cannot go on, and the same command takes it up again: one line and exit status 1."""


@dataclass
class TrackError(Exception):
    """This track cannot be tagged.

    Args:
        stage: one of `ERRORS`.
        error: one of `ERRORS[stage]`.
        message: what was seen, for people; any text.
    """

    stage: str
    error: str
    message: str

    def __post_init__(self) -> None:
        if self.error not in ERRORS.get(self.stage, {}):
            raise ValueError(f"no error {self.error!r} in stage {self.stage!r}: allowed are {ERRORS}")
        super().__init__(self.stage, self.error, self.message)

    @property
    def permanent(self) -> bool:
        return ERRORS[self.stage][self.error]
