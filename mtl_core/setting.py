"""Setting: the value of one flag, as a variable or a TOML file gives it, and as the words of a command line."""

import contextlib
import io
import json
import re
import shlex
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from mtl_core import log
from mtl_core.errors import InputError, one_line


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A flag's value from the environment or the file."""

    name: str
    given: Any  # as it is there
    words: list[str]  # as flags
    source: str

    def __str__(self) -> str:
        return f"{self.source}: {self.name} = {self.given!r}"


def flag_name(name: str) -> str:
    """The name of a flag, of the name of its field."""
    return name.replace("_", "-")


def parse(options: Any, args: Sequence[str], **settings: Any) -> Any:
    """What tyro makes of flags. One that is not allowed is an InputError."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options, args=args, **settings)
    except SystemExit as error:
        if not error.code:
            raise
    first_paragraph = re.split(r"│ ─+ │", printed.getvalue())[0]  # of tyro's error, which is drawn as a box
    lines = [line.strip("│ ") for line in first_paragraph.splitlines() if not line.startswith(("╭", "╰"))]
    raise InputError(one_line(" ".join(lines)).removeprefix(f"Error parsing {getattr(options, '__name__', '')}: "))


def from_toml(name: str, given: Any, kind: Any, source: str) -> Setting:
    """The setting of a flag of a type, by a value of a TOML file. Raises InputError for one of another type."""
    values = given if isinstance(given, list) else [given]
    if kind is bool and isinstance(given, bool):
        return Setting(name=name, given=given, words=bool_words(name, given), source=source)
    setting = Setting(name=name, given=given, words=[f"--{flag_name(name)}", *map(str, values)], source=source)
    if not _is_same(given, _parsed(setting, kind)):
        raise _wrong_type(setting, kind)
    return setting


def from_environment(name: str, given: str, kind: Any, variable: str) -> Setting:
    """The same by the text of a variable, which holds a list as a shell does."""
    is_true = {"true": True, "1": True, "false": False, "0": False}.get(given.lower())
    if kind is bool and is_true is not None:
        return Setting(name=name, given=given, words=bool_words(name, is_true), source=variable)
    try:
        words = shlex.split(given) if _is_list(kind) else [given]
    except ValueError as error:  # a quote without its end
        raise InputError(f"{variable}={given}: {error}") from None
    setting = Setting(name=name, given=given, words=[f"--{flag_name(name)}", *words], source=variable)
    _parsed(setting, kind)
    return setting


def bool_words(name: str, value: bool) -> list[str]:
    """The flag that says yes or no."""
    return [f"--{flag_name(name)}" if value else f"--no-{flag_name(name)}"]


def _parsed(setting: Setting, kind: Any) -> Any:
    """The value of the flag alone. Raises InputError where the words are not of its type."""
    if kind is bool:
        raise _wrong_type(setting, kind)
    try:
        return parse(kind, setting.words[1:])
    except InputError:
        raise _wrong_type(setting, kind) from None


def _is_same(given: Any, parsed: Any) -> bool:
    """Whether a value of TOML is of the type of the flag's value, and not only written alike."""
    if isinstance(parsed, tuple) or isinstance(given, list):
        return isinstance(parsed, tuple) and isinstance(given, list) and all(map(_is_same, given, parsed))
    return (parsed is None and given == "None") or isinstance(given, str) == isinstance(parsed, str)


def _wrong_type(setting: Setting, kind: Any) -> InputError:
    return InputError(f"{setting}: allowed is {_describe(kind)}")


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(each) is tuple for each in (kind, *typing.get_args(kind)))


def _describe(kind: Any) -> str:
    """The values that a type allows, in words."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, arguments))
    if typing.get_origin(kind) is tuple:
        return f"a list, each item {_describe(arguments[0])}"
    if arguments:
        return " or ".join(map(_describe, arguments))
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "'None'"}
    return words[kind]


def to_toml(value: Any) -> str:
    """A flag's value as TOML. Credentials are hidden."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or value is None:  # TOML has no null
        return json.dumps(log.hide_credentials(str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
