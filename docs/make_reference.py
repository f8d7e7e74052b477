"""Write docs/reference.md: the flags of each command, from the dataclasses of its options. `make docs` runs this.

python docs/make_reference.py
"""

import ast
import dataclasses
import importlib
import inspect
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from tyro.conf import Positional

from mtl_core.__main__ import COMMANDS
from mtl_core.configuration import CommonOptions

PAGE = Path(__file__).parent / "reference.md"
HEAD = """# Every command and its flags

<!-- Written by docs/make_reference.py: do not edit. -->

`mtl-core COMMAND …`, `python -m mtl_core COMMAND …` and, in a checkout, `python jobs/COMMAND.py …` are the same.
`mtl-core COMMAND --help` prints what this page has. What each exit status means: [runbook.md](runbook.md).

Flags can also be variables or keys of a TOML file: [configuration.md](configuration.md). Every command has these:
"""
NAMES = {str: "text", int: "whole number", float: "number"}


def options_of(command: str) -> type:
    """The dataclass whose fields are the flags of a command."""
    return importlib.import_module(f"mtl_core.jobs.{command}").Options


def field_docs(options: type) -> dict[str, str]:
    """Field -> the docstring under it, also of the classes that `options` inherits from."""
    docs: dict[str, str] = {}
    for parent in reversed(options.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return docs


def values(kind: typing.Any) -> str:
    """What a flag takes, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return values(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return f"{values(arguments[0])}, one or more"
    return NAMES[kind]


def row(field: dataclasses.Field, doc: str) -> str:
    """A row of a command's table."""
    flag, kind = f"`--{field.name.replace('_', '-')}`", field.type
    if typing.get_origin(kind) is typing.Annotated:
        positional = Positional[typing.get_args(kind)[0]] == kind
        flag, kind = (f"`{field.name.upper()}`" if positional else flag), typing.get_args(kind)[0]
    if kind is bool:
        takes, default = "", "yes" if field.default else "no"
    else:
        takes = values(kind)
        default = "" if field.default in (None, ()) else f"`{_text(field.default)}`"
    if field.default is dataclasses.MISSING:
        default = "**required**"
    cells = (flag, takes, default, doc.replace("|", "\\|").replace("<", "&lt;"))
    return "| " + " | ".join(cells) + " |"


def _text(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def section(command: str) -> str:
    """What a command does and the table of its flags, those that are required first."""
    options = options_of(command)
    docs = field_docs(options)
    purpose = " ".join((options.__doc__ or "").split())
    fields = sorted(dataclasses.fields(options), key=lambda field: field.default is not dataclasses.MISSING)
    others = [name for name in COMMANDS if name != command and issubclass(options, options_of(name))]
    if others:  # nightly takes what tag_catalogue takes: list its own flags alone
        (other,) = others
        inherited = {field.name for field in dataclasses.fields(options_of(other))}
        fields = [field for field in fields if field.name not in inherited]
        purpose += f"\n\nAll flags of [{other}](#{other}), and:"
    return f"\n## {command}\n\n{purpose}\n\n{table(fields, docs)}"


def table(fields: Sequence[dataclasses.Field], docs: Mapping[str, str]) -> str:
    """The table of some flags."""
    rows = [row(field, docs[field.name]) for field in fields]
    return "\n".join(["| flag | takes | default | |\n| --- | --- | --- | --- |", *rows])


def page() -> str:
    """The whole page."""
    of_all = table(dataclasses.fields(CommonOptions), field_docs(CommonOptions))
    return f"{HEAD}\n{of_all}\n" + "\n".join(map(section, COMMANDS)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
