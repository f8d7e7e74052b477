"""Flags go before variables, and these before the file; each wrong value ends in one line that says where it is."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tyro.conf import Positional

from mtl_core import cli, configuration
from mtl_core.configuration import resolve
from mtl_core.errors import InputError
from mtl_core.jobs import nightly, tag_catalogue

REPOSITORY = Path(__file__).parents[1]
TAG = ["--manifest", "m", "--model", "x", "--out", "o"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """Of a program of a user."""

    out: str
    count: int = 1
    share: float = 0.5
    dry: bool = False
    limit: int | None = None
    names: tuple[str, ...] = ()
    folds: tuple[int, ...] | None = None
    kind: Literal["a", "b"] = "a"
    files: Positional[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be 1 or more, got {self.count}")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MTL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a file of configuration; gives its path."""

    def write_file(content: str) -> str:
        (tmp_path / "mtl.toml").write_text(content)
        return str(tmp_path / "mtl.toml")

    return write_file


def test_flags_go_before_variables_and_these_before_the_file(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        "limit = 1\nretry_days = 1\nnum-workers = 1\nsegments = 1\n[tag_catalogue]\nlimit = 2\nretry_days = 2\n"
    )
    monkeypatch.setenv("MTL_CONFIG", file)
    monkeypatch.setenv("MTL_LIMIT", "3")
    monkeypatch.setenv("MTL_NUM_WORKERS", "3")
    configured = resolve(tag_catalogue.Options, [*TAG, "--limit", "4"])
    options, sources = configured.options, configured.sources
    assert (options.limit, options.num_workers, options.retry_days, options.segments) == (4, 3, 2, 1)
    assert (sources["limit"], sources["num_workers"]) == ("flag", "MTL_NUM_WORKERS")
    assert (sources["retry_days"], sources["segments"]) == (f"{file} [tag_catalogue]", file)
    assert sources["max_channels"] == "default"
    assert resolve(tag_catalogue.Options, [*TAG, "--config", "none"]).options.limit is None


def test_what_is_required_can_be_configured(write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_OUT", "/o")
    file = write('manifest = "/m"\n[tag_catalogue]\nmodel = "/x"\n[train]\nepochs = 3\n')
    options = resolve(tag_catalogue.Options, ["--config", file]).options
    assert (options.manifest, options.model, options.out) == ("/m", "/x", "/o")


def test_nightly_reads_the_table_of_tag_catalogue_below_its_own(write: Callable[[str], str]) -> None:
    file = write("[nightly]\nlimit = 2\nretries = 5\n[tag_catalogue]\nlimit = 1\nretry_failed = true\n")
    options = resolve(nightly.Options, [*TAG, "--config", file]).options
    assert (options.limit, options.retries, options.retry_failed) == (2, 5, True)
    with pytest.raises(InputError, match=r"\[tag_catalogue\]: retries = 1: there is no such flag"):
        resolve(tag_catalogue.Options, [*TAG, "--config", write("[tag_catalogue]\nretries = 1")])


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("COUNT", "7", 7),
        ("SHARE", "1e-3", 0.001),
        ("DRY", "true", True),
        ("DRY", "0", False),
        ("LIMIT", "None", None),
        ("LIMIT", "-2", -2),
        ("NAMES", "a 'b c'", ("a", "b c")),
        ("NAMES", "", ()),
        ("FOLDS", "1 2", (1, 2)),
        ("FOLDS", "None", None),
        ("KIND", "b", "b"),
    ],
)
def test_a_variable_is_read_as_the_type_of_its_flag(
    variable: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MTL_{variable}", text)
    assert getattr(resolve(Flags, ["--out", "o"]).options, variable.lower()) == value


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("COUNT", "many", "MTL_COUNT: count = 'many': allowed is an integer"),
        ("COUNT", "0", "MTL_COUNT: count = '0': count must be 1 or more, got 0"),
        ("DRY", "yes", "MTL_DRY: dry = 'yes': allowed is true or false"),
        ("LIMIT", "", "MTL_LIMIT: limit = '': allowed is an integer or 'None'"),
        ("FOLDS", "1 x", "MTL_FOLDS: folds = '1 x': allowed is a list, each item an integer or 'None'"),
        ("NAMES", "'a", "MTL_NAMES='a: No closing quotation"),
        ("KIND", "c", "MTL_KIND: kind = 'c': allowed is 'a' or 'b'"),
        ("COUNTS", "1", "MTL_COUNTS=1: there is no such flag; the nearest is MTL_COUNT"),
        ("NUM_WORKER", "1", "MTL_NUM_WORKER=1: there is no such flag; the nearest is MTL_NUM_WORKERS"),
        ("CONFIG", "/not/there", "the configuration /not/there cannot be read: No such file or directory"),
        ("LOG_FORMAT", "xml", "MTL_LOG_FORMAT: log_format = 'xml': allowed is 'text' or 'json'"),
    ],
)
def test_a_wrong_variable(variable: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MTL_{variable}", text)
    with pytest.raises(InputError, match=re.escape(message)):
        resolve(Flags, ["--out", "o"])
    if variable != "CONFIG":
        assert resolve(Flags, ["--out", "o", "--config", "none"])
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()) as printed:
        resolve(Flags, ["--help"])
    assert ended.value.code == 0 and "--config FILE" in printed.getvalue(), "help needs no configuration"


def test_variables_of_others_are_named_in_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubernetes sets them for a service `mtl-core`. A flag of another command is none of them."""
    for name in ("MTL_CORE_PORT", "MTL_CORE_SERVICE_HOST", "MTL_EPOCHS"):
        monkeypatch.setenv(name, "1")
    resolve(Flags, ["--out", "o"])
    expected = "warning: there is no flag for MTL_CORE_PORT, MTL_CORE_SERVICE_HOST: they set nothing\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("count = '4'", "{file}: count = '4': allowed is an integer"),
        ("count = true", "{file}: count = True: allowed is an integer"),
        ("count = 4.0", "{file}: count = 4.0: allowed is an integer"),
        ("count = [4]", "{file}: count = [4]: allowed is an integer"),
        ("count = 0", "{file}: count = 0: count must be 1 or more, got 0"),
        ("share = 'a'", "{file}: share = 'a': allowed is a number"),
        ("dry = 1", "{file}: dry = 1: allowed is true or false"),
        ("kind = 'c'", "{file}: kind = 'c': allowed is 'a' or 'b'"),
        ("names = 'a'", "{file}: names = 'a': allowed is a list, each item a text"),
        ("names = [1]", "{file}: names = [1]: allowed is a list, each item a text"),
        ("out = 3", "{file}: out = 3: allowed is a text"),
        ("out = 2026-11-28", "{file}: out = datetime.date(2026, 11, 28): allowed is a text"),
        ("outs = 'a'", "{file}: outs = 'a': there is no such flag; the nearest is out"),
        ("files = ['a']", "{file}: files = ['a']: there is no such flag"),
        ("num_workers = 1\nnum-workers = 2", "num-workers = 2: num_workers is there, too, and is the same flag"),
        ("print_config = true", "{file}: print_config = True: there is no such flag"),
        ("config = 'a'", "{file}: config = 'a': there is no such flag"),
        ("[tag_catalog]", "{file}: [tag_catalog]: there is no such command; the nearest is tag_catalogue"),
        ("status = 1", "{file}: status = 1: allowed is a table, [status]"),
        ("[[train]]\nout = 'a'", "{file}: train = [{{'out': 'a'}}]: allowed is a table, [train]"),
        ("[train]\nepoch = 1", "{file} [train]: epoch = 1: there is no such flag; the nearest is epochs"),
        ("count = ", "the configuration {file} is not TOML: Invalid value (at end of document)"),
        ("count = 1\ncount = 2", "the configuration {file} is not TOML: Cannot overwrite a value"),
    ],
)
def test_a_wrong_file(content: str, message: str, write: Callable[[str], str]) -> None:
    file = write(content)
    with pytest.raises(InputError, match=re.escape(message.format(file=file))):
        resolve(Flags, ["--out", "o", "--config", file])


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="f is not TOML: 'utf-8' codec"):
        resolve(Flags, ["--config", str(tmp_path / "f")])
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        resolve(Flags, ["--config", str(tmp_path)])
    with pytest.raises(InputError, match="the configuration '' cannot be read"):
        resolve(Flags, ["--out", "o", "--config", ""])


def test_a_file_of_windows(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfcount = 2\r\nout = 'a'\r\n")
    options = resolve(Flags, ["--config", str(tmp_path / "f")]).options
    assert (options.count, options.out) == (2, "a")


def test_what_stands_behind_two_dashes_is_no_flag() -> None:
    assert resolve(Flags, ["--out", "o", "--", "--config", "-x"]).options.files == ("--config", "-x")


texts = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).filter(lambda text: not text.startswith("-"))


@settings(deadline=None, max_examples=30)
@given(
    st.fixed_dictionaries(
        {"out": texts, "count": st.integers(1, 2**40), "share": st.floats(), "dry": st.booleans(),
         "limit": st.none() | st.integers(0, 9), "names": st.lists(texts).map(tuple),
         "folds": st.none() | st.lists(st.integers(0, 9)).map(tuple), "kind": st.sampled_from("ab")}
    )
)  # fmt: skip
def test_what_is_printed_gives_the_same_values(values: dict[str, Any]) -> None:
    options = Flags(**values)
    sources = dict.fromkeys(values, "flag") | {"log_format": "default"}
    printed = configuration.Configuration(
        common=configuration.CommonOptions(), options=options, sources=sources
    ).to_toml()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_, **__: printed)
        again = resolve(Flags, ["--config", "printed"])
    hidden = {name: _hidden(value) for name, value in values.items()}
    assert repr(again.options) == repr(Flags(**hidden))  # repr: nan is not nan


def _hidden(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_hidden, value))
    return configuration.log.hide_credentials(value) if isinstance(value, str) else value


def test_print_config_prints_a_file_that_prints_itself_and_does_nothing(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def print_config(*flags: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mtl-core tag_catalogue", "--print-config", *flags])
        with pytest.raises(SystemExit) as ended:
            cli.main(tag_catalogue.main, tag_catalogue.Options)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.err) == (0, "")
        return printed.out

    file = write('log_format = "text"\n[tag_catalogue]\nlimit = 2\nallow_uri_prefix = ["s3://a/b c", "/d"]\n')
    first = print_config("--config", file, "--manifest", "s3://AKIA1:se/cret@b/m", "--model=/x y", "--retry-failed")
    assert 'manifest = "s3://***@b/m"  # flag' in first and "# out is required" in first and "se/cret" not in first
    assert f"limit = 2  # {file} [tag_catalogue]" in first and "retry_failed = true  # flag" in first
    second = print_config("--config", write(first))
    assert tomllib.loads(second) == tomllib.loads(first)


def test_the_driver_of_a_night_gets_flags_and_reads_no_configuration(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a cluster's driver, whose machine has other variables and files, does what was asked here."""
    file = write('limit = 5\nlog_format = "json"\nmax_failed_share = 0.5\n')
    monkeypatch.setenv("MTL_CONFIG", file)
    asked: list[list[str]] = []

    def record(command: list[str], *_: object) -> object:
        asked.append(command)
        raise InputError("enough")

    monkeypatch.setattr(nightly, "run_night", record)
    configured = resolve(nightly.Options, [*TAG, "--limit", "None", "--config", file])
    with pytest.raises(InputError, match="enough"):
        nightly.main(configured.options)
    configuration.log.configure("text")
    ((command, *flags),) = asked
    monkeypatch.setenv("MTL_RETRY_FAILED", "1")  # as on the driver's machine
    driver = resolve(tag_catalogue.Options, flags)
    assert command == "tag_catalogue" and driver.common.log_format == "json"
    assert (driver.options.limit, driver.options.max_failed_share, driver.options.retry_failed) == (None, 0.5, False)


def test_the_example_of_the_documentation_is_a_file_for_all_commands(write: Callable[[str], str]) -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = write(example)
    for options in (tag_catalogue.Options, nightly.Options):  # the keys of other tables are checked, too
        assert resolve(options, ["--config", file]).common.log_format == "json"
    configuration.log.configure("text")
