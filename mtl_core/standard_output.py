"""Standard output: nothing that happens to stdout or stderr changes what a job does.

They can be closed, full, a pipe whose reader has ended, or unable to write a letter. Reports are lost then; the work
is not. A reader that lives but does not read stops a job, as it stops any program.
"""

import os
import sys
from typing import Any, TextIO


class LossyStream:
    """A text stream that drops what cannot be written. Everything else is that of the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._works = stream, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text if that is possible; its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        if self._works:
            try:
                action()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._works = False


def install() -> None:
    """Make this process's stdout and stderr lossy; characters that they cannot write become escapes."""
    for descriptor in range(3):  # a file that is opened later must not get the number of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            stream = open(os.devnull, "w")  # noqa: SIM115
        if not isinstance(stream, LossyStream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, LossyStream(stream))
