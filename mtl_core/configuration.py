"""Configuration: the values of a command's flags, from the command line, the environment and one TOML file.

The command line goes before the environment (`MTL_NUM_WORKERS=4` is `--num-workers 4`), and that before the file that
`--config` or `MTL_CONFIG` names. Its keys are for every command, and those of a table such as `[tag_catalogue]` for one
command. All of them become flags, in front of those of the command line, so they are checked alike.
"""

import dataclasses
import difflib
import inspect
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from mtl_core import log
from mtl_core.errors import InputError, one_line
from mtl_core.setting import Setting, bool_words, flag_name, from_environment, from_toml, parse, to_toml

Options = TypeVar("Options")

FLAGS_ALONE = "none"  # as --config
#: Flags of the command line alone. A variable that is left behind must not make every night print and do nothing.
NOT_ELSEWHERE = ("config", "print_config")
PREFIX = "MTL_"
COMMANDS = {file.stem for file in (Path(__file__).parent / "jobs").glob("[a-z]*.py")}
#: The flags of all commands, which are not imported for it: that takes seconds. A test compares them.
FLAGS = set(
    "accept_failures against allow_empty allow_uri_prefix alpha alphas artists_per_language back catalogue clean"
    " compact current decode_limit_s decode_memory_mib decoded_tracks difficulty draws drop_head dry_run"
    " duplicate_duration_s duplicate_similarity epochs exit export_parquet fold folds forget group_column html"
    " inventory json k keep_days labels labels_from languages limit log_format manifest margin max_channels"
    " max_duration_s max_failed_share max_file_mib max_rate_hz mels model name num_workers on only_changed out"
    " plan_only precision prune_to purge_now recipe recipes remove rename resamples restore_before"
    " retries retry_days retry_failed retry_wait_s sampling seed seeds segments segments_per_excerpt song_s"
    " songs_per_artist split table_only tags task tasks unforget unknown_share use_gpu worker_memory_mib yes".split()
)
HELP = """Every command also has --config FILE, --print-config and --log-format text|json. Each flag can be given as a
variable, such as MTL_NUM_WORKERS, or in the TOML file FILE: docs/configuration.md."""


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """The flags of every command."""

    config: str | None = None
    """TOML file of flags; default: the one that MTL_CONFIG names. `none`: neither a file nor variables count."""
    print_config: bool = False
    """Print the flags' values as such a file, and where each comes from; do nothing else."""
    log_format: log.Format = "text"
    """Of stderr; json: one event a line, as a JSON object."""


@dataclass(frozen=True, kw_only=True)
class Configuration(Generic[Options]):
    """The values of a command's flags."""

    common: CommonOptions
    options: Options
    sources: dict[str, str]  # of each flag

    def to_toml(self) -> str:
        """A file that gives the same values; a comment says where each comes from. Credentials are hidden."""
        commands = _commands(type(self.options))
        lines = [_toml_line("log_format", self.common.log_format, self.sources["log_format"])]
        lines += [f"\n[{commands[-1]}]"] if commands else []
        for name in flag_types(type(self.options)):
            source = self.sources[name]
            value = getattr(self.options, name)
            lines.append(f"# {name} is required" if source == "required" else _toml_line(name, value, source))
        return "\n".join(lines) + "\n"


def early_format(args: Sequence[str]) -> log.Format:
    """The format of the log before the flags are read."""
    asked = re.findall(r"--log[-_]format[= ](\S+)", " ".join(args)) or [os.environ.get(f"{PREFIX}LOG_FORMAT")]
    return "json" if asked[-1] == "json" else "text"


def resolve(options: type[Options], args: Sequence[str]) -> Configuration[Options]:
    """The configuration of a command, whose flags are the fields of the dataclass `options`.

    Raises:
        InputError: a flag, a variable or the file is wrong, or a value is not allowed, also by `__post_init__`.
        SystemExit: help was asked for, and is printed.
    """
    end = args.index("--") if "--" in args else len(args)  # what follows is no flag
    asked = list(args[:end])
    given, rest = parse(CommonOptions, asked, return_unknown_args=True, add_help=False)
    rest += args[end:]
    described = {"description": f"{inspect.cleandoc(options.__doc__ or '')}\n\n{HELP}"}
    if {"-h", "--help"} & set(rest):
        parse(options, rest, **described)
    file = os.environ.get(f"{PREFIX}CONFIG") if given.config is None else given.config
    tables = [] if file in (None, FLAGS_ALONE) else _read_tables(str(file), _commands(options))
    environment = {} if file == FLAGS_ALONE else {n: v for n, v in os.environ.items() if n.startswith(PREFIX)}
    of_common = _settings(flag_types(CommonOptions), tables, environment)
    common, _ = parse(CommonOptions, [*_words(of_common), *asked], return_unknown_args=True, add_help=False)
    log.configure(common.log_format)
    flags = flag_types(options)
    for number, (source, values) in enumerate(tables):  # the first is for every command
        _check_keys(source, values, {*flags, *flag_types(CommonOptions), *(() if number else FLAGS)})
    _check_variables(environment, flags)
    settings = _settings(flags, tables, environment)
    sources = _sources(options, settings, rest) | _sources(CommonOptions, of_common, asked)
    missing = [f"--{flag_name(name)}=" for name, source in sources.items() if source == "required"]
    words = [*(missing if common.print_config else ()), *rest]
    try:
        values = parse(options, [*_words(settings), *words], **described)
    except InputError as error:
        blamed = "; ".join(str(setting) for setting in _blamed(options, settings, words, str(error)))
        raise InputError(f"{blamed}: {error}" if blamed else str(error)) from None
    return Configuration(common=common, options=values, sources=sources)


def flags_of(values: Mapping[str, Any], options: type) -> list[str]:
    """The flags that give a job these values: the other direction of `resolve`.

    Values that are no fields of the dataclass `options`, and values that are its defaults, need no flag.
    """
    flags: list[str] = []
    for field in dataclasses.fields(options):
        value = values[field.name]
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags += bool_words(field.name, value)
        else:
            flags += [f"--{flag_name(field.name)}", *map(str, value if isinstance(value, tuple) else [value])]
    return flags


def _commands(options: type) -> list[str]:
    """The commands whose tables a class of flags reads, the last before the others: `nightly` has those of
    `tag_catalogue`."""
    modules = [each.__module__.rpartition(".")[2] for each in reversed(options.__mro__) if each.__name__ == "Options"]
    return [module for module in modules if module in COMMANDS]


def flag_types(options: type) -> dict[str, Any]:
    """Name -> type of the flags that can be given elsewhere: no positional arguments, and not `NOT_ELSEWHERE`."""
    hints = typing.get_type_hints(options, include_extras=True)
    names = [field.name for field in dataclasses.fields(options)]
    is_flag = {name: tyro.conf.Positional not in getattr(hints[name], "__metadata__", ()) for name in names}
    return {name: hints[name] for name in names if is_flag[name] and name not in NOT_ELSEWHERE}


def _words(settings: Iterable[Setting]) -> list[str]:
    return [word for setting in settings for word in setting.words]


def _read_tables(file: str, commands: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(name, content) of the parts of a file that count, the last before the others."""
    try:
        content = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))  # editors of Windows write a mark in front
    except OSError as error:
        raise InputError(f"the configuration {file or repr(file)} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of TOML or UTF-8
        raise InputError(f"the configuration {file} is not TOML: {one_line(error)}") from None
    for command in sorted(content.keys() & COMMANDS):
        if not isinstance(content[command], dict):
            raise InputError(f"{file}: {command} = {content[command]!r}: allowed is a table, [{command}]")
    common = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for table in sorted(content.keys() - common.keys() - set(commands)):
        if table not in COMMANDS:
            raise InputError(f"{file}: [{table}]: there is no such command{_nearest(table, COMMANDS)}")
        _check_keys(f"{file} [{table}]", content[table], FLAGS)
    return [(file, common), *((f"{file} [{name}]", content[name]) for name in commands if name in content)]


def _check_keys(source: str, values: Mapping[str, Any], allowed: set[str]) -> None:
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in allowed:
            raise InputError(f"{source}: {key} = {value!r}: there is no such flag{_nearest(key, allowed)}")
        if name != key and name in values:
            raise InputError(f"{source}: {key} = {value!r}: {name} is there, too, and is the same flag")


def _check_variables(environment: Mapping[str, str], flags: Mapping[str, Any]) -> None:
    """Refuse a variable that looks like a mistyped one. Warn of others: Kubernetes sets MTL_CORE_PORT for a service."""
    allowed = {f"{PREFIX}{name.upper()}" for name in FLAGS | flags.keys() | {"config"}}
    unknown = sorted(environment.keys() - allowed)
    for variable in unknown:
        near = {name for name in allowed if _is_near(variable.removeprefix(PREFIX), name.removeprefix(PREFIX))}
        if near:
            raise InputError(f"{variable}={environment[variable]}: there is no such flag{_nearest(variable, near)}")
    if unknown:
        log.warning(f"there is no flag for {', '.join(unknown)}: they set nothing")


def _is_near(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.8


def _nearest(name: str, allowed: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0)
    return f"; the nearest is {nearest[0]}" if nearest else ""


def _settings(
    flags: Mapping[str, Any], tables: Sequence[tuple[str, dict[str, Any]]], environment: Mapping[str, str]
) -> list[Setting]:
    """The values that the file and the environment give. Raises InputError for one of a wrong type."""
    settings = {}
    for source, values in tables:
        for key, value in values.items():
            name = key.replace("-", "_")
            if name in flags:
                settings[name] = from_toml(name, value, flags[name], source)
    for name, kind in flags.items():
        if (variable := f"{PREFIX}{name.upper()}") in environment:
            settings[name] = from_environment(name, environment[variable], kind, variable)
    return list(settings.values())


def _sources(options: type, settings: Iterable[Setting], args: Sequence[str]) -> dict[str, str]:
    """Where the value of each flag comes from."""
    given = {word.partition("=")[0].replace("_", "-") for word in args}
    required = {field.name for field in dataclasses.fields(options) if field.default is dataclasses.MISSING}
    sources = {name: "required" if name in required else "default" for name in flag_types(options)}
    sources |= {setting.name: setting.source for setting in settings}
    return sources | {name: "flag" for name in sources if {f"--{flag_name(name)}", f"--no-{flag_name(name)}"} & given}


def _blamed(options: type, settings: list[Setting], args: Sequence[str], message: str) -> Iterable[Setting]:
    """The settings without which there would be another error or none."""
    for setting in settings:
        others = [other for other in settings if other is not setting]
        try:
            parse(options, [*_words(others), *args])
        except InputError as error:
            if str(error) == message or "required" in str(error):
                continue
        yield setting


def _toml_line(name: str, value: Any, source: str) -> str:
    return f"{name} = {to_toml(value)}  # {source}"
