"""Log: what a command reports on stderr, as text for people or as one JSON object a line.

An event has a name, a level, the id of the run at work, and fields of its own. As text its message alone is printed,
and an event without a message is not printed. Both formats hide credentials in URLs.

The events are records of the logger "mtl_core" of Python's `logging`, which prints them wherever `sys.stderr` is now.
"""

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["text", "json"]

_LOGGER = logging.getLogger("mtl_core")
#: user:password@ or token@ of a URL; not the port of http://host:8265/…
_USER = re.compile(r"(\w+://)(?:[^\s/@:]+|[^\s/@:]*:(?!\d+(?:[/\s]|$))\S+)@")
_SIGNED = re.compile(
    r"((?:X-Amz-(?:Credential|Signature|Security-Token)|AWSAccessKeyId|Signature)=)[^&\s'\"]+", re.IGNORECASE
)
_run_id: str | None = None


def hide_credentials(text: str) -> str:
    """A text without the credentials of the URLs in it: user and password, and what signs a query.

    >>> hide_credentials("http://user:password@store:9000/b?X-Amz-Signature=0a1b&n=1")
    'http://***@store:9000/b?X-Amz-Signature=***&n=1'
    """
    return _SIGNED.sub(r"\1***", _USER.sub(r"\1***@", text))


def event(name: str, message: str = "", *, level: int = logging.INFO, **fields: Any) -> None:
    """Report an event. `fields` are for programs; they are values of JSON."""
    _LOGGER.log(level, message, extra={"event": name, "fields": fields})


def warning(message: str) -> None:
    """Report what a person should look at, and what does not stop the command."""
    event("warning", message, level=logging.WARNING)


def set_run_id(run_id: str) -> None:
    """Let the events from now on name this run."""
    global _run_id
    _run_id = run_id


def current_format() -> Format:
    """The format that `configure` has set."""
    return _HANDLER.log_format


def configure(log_format: Format) -> None:
    """Set the format of this process. With "json", lines that others print to `sys.stderr` become events, too."""
    _HANDLER.log_format = log_format
    if log_format == "json" and not isinstance(sys.stderr, _JsonLines):
        sys.stderr = _JsonLines(sys.stderr)
    elif log_format == "text" and isinstance(sys.stderr, _JsonLines):
        sys.stderr = sys.stderr.stream


def message_of(line: str) -> str:
    """The message of a line of either format."""
    event_of_line = _parse(line)
    return line if event_of_line is None else str(event_of_line.get("message", ""))


class _Handler(logging.Handler):
    log_format: Format = "text"

    def emit(self, record: logging.LogRecord) -> None:
        message, name = record.getMessage(), getattr(record, "event", record.levelname.lower())
        if self.log_format == "json":
            if isinstance(sys.stderr, _JsonLines):
                sys.stderr.end_line()
            line = _to_json(record.created, record.levelname, name, message, getattr(record, "fields", {}))
        elif message:
            line = hide_credentials(f"warning: {message}" if name == "warning" else message)
        else:
            return
        if sys.stderr is not None:  # it was closed when Python started
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _to_json(time_s: float, level: str, name: str, message: str, fields: dict[str, Any]) -> str:
    time = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    values = {"time": time, "level": level.lower(), "event": name, "run_id": _run_id}
    values |= ({"message": message} if message else {}) | fields
    hidden = {key: hide_credentials(value) for key, value in values.items() if isinstance(value, str)}
    return json.dumps(values | hidden)


def _parse(line: str) -> dict[str, Any] | None:
    """The event of a line of JSON; None: it is another line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


class _JsonLines:
    """A stream of events: a line that is none, of a library or of a worker, becomes one. The rest is that of stderr."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self._begun = stream, threading.local()  # `print` writes a line and its end one after the other

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        *lines, self._begun.line = (getattr(self._begun, "line", "") + text).split("\n")
        for line in filter(str.strip, lines):
            is_event = _parse(line) is not None
            now_s = datetime.now(UTC).timestamp()
            self.stream.write((line if is_event else _to_json(now_s, "info", "output", line.strip(), {})) + "\n")
        return len(text)

    def end_line(self) -> None:
        """End the line that this thread has begun, as a bar of progress does: what follows is not a part of it."""
        if getattr(self._begun, "line", ""):
            self.write("\n")


_HANDLER = _Handler()
_LOGGER.addHandler(_HANDLER)
_LOGGER.setLevel(logging.INFO)
_LOGGER.propagate = False  # a program with a handler of its own for all loggers would print each event twice
