"""`mtl-core tag`: a line a file, exit status 3 where one failed, and no import of what it does not need."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_core import __main__
from mtl_core.jobs.tag import _cells
from mtl_core.schema import TAGS
from mtl_core.storage.location import Location

DATA = Path(__file__).parents[1] / "fixtures" / "version_0_1"
ALBUM = DATA / "catalogue/audio/juno-linden/dark-heart-at-dawn"
SONG = ALBUM / "04-hidden-rain-over-the-sea.mp3"
MODEL = ("--model", DATA / "best")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run mtl-core with arguments; gives its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mtl-core", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_a_folder_and_a_file_are_a_table(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run("tag", ALBUM, SONG, *MODEL)
    header, *lines = out.splitlines()
    assert status == 0 and header.split() == ["artist", "conf.", "language", "conf.", "length", "file"]
    assert re.fullmatch(rf"Juno Linden +0\.68 +qqt +0\.76 +0:08  {ALBUM}/03-cold-island-in-may.ogg", lines[0])
    assert lines[1] == lines[2] and lines[1].endswith(f"0:07  {SONG}")


def test_a_bad_file_is_a_line_with_its_reason_and_status_3(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, error = run("tag", SONG, DATA / "catalogue/bad/text.mp3", "missing.mp3", *MODEL)
    assert error.splitlines()[-1] == "done, but 2 of 3 tracks failed [exit status 3]"
    _, song, text, missing = out.splitlines()
    assert status == 3 and song.startswith("Juno Linden")
    assert re.match(r"failed: decode not_audio +.*text.mp3: .*the file begins with b'these are words", text)
    assert re.match(r"failed: fetch not_found +missing.mp3: ", missing)
    columns = {line.index(name) for line, name in ((song, str(SONG)), (text, str(DATA)), (missing, "missing"))}
    assert len(columns) == 1, "the files are in one column"
    status, out, _ = run("tag", SONG, *MODEL, "--allow-uri-prefix", ALBUM, "--max-duration-s", "7")
    assert status == 3 and "failed: decode too_large" in out
    status, out, _ = run("tag", SONG, *MODEL, "--allow-uri-prefix", DATA / "best", "s3://bucket")
    assert status == 3 and "failed: fetch forbidden" in out


def test_json_has_the_columns_of_the_tags(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run("tag", SONG, "missing.mp3", "--json", *MODEL)
    tags, failure = map(json.loads, out.splitlines())
    assert status == 3 and list(tags) == TAGS.names and len(tags["embedding"]) == 96
    assert tags["artist"] == "Juno Linden" and tags["uri"] == str(SONG) and tags["content_id"] is not None
    assert (failure["track_id"], failure["stage"], failure["error"]) == ("missing.mp3", "fetch", "not_found")


def test_tracks_on_s3_are_tagged(run: Callable[..., tuple[int, str, str]], bucket: str) -> None:
    for path in (SONG, *(DATA / "best").iterdir()):
        folder = "songs" if path == SONG else "model"
        (Location(bucket) / folder / path.name).write_bytes(path.read_bytes())
    model = ("--model", f"{bucket}/model")
    status, out, _ = run("tag", f"{bucket}/songs", f"{bucket}/songs/{SONG.name}", *model)
    assert status == 0 and [line.split()[-1] for line in out.splitlines()[1:]] == [f"{bucket}/songs/{SONG.name}"] * 2
    assert run("tag", f"{bucket}/missing.mp3", *model)[0] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tag", "{empty}", *MODEL], "no audio file below {empty}"),
        (["tag", *MODEL], "no path: give files"),
        (["tag", SONG], "--model"),
        (["tag", SONG, "--model", "{empty}"], "{empty} is not a model artifact"),
        (["tag", "gs://bucket/a.mp3", *MODEL], "'gs://bucket/a.mp3'"),
        (["tag", SONG, *MODEL, "--decode-limit-s", "0"], "the time limit of decoding must be above 0"),
        (["tag", SONG, *MODEL, "--max-channels", "0"], "the most channels must be 1 or more, got 0"),
        (["tag", SONG, *MODEL, "--allow-uri-prefix", "gs://bucket"], "'gs://bucket'"),
        (["tags"], "unknown command 'tags': allowed are tag, explain, build_manifest"),
        ([], "no command: allowed are tag"),
    ],
)
def test_wrong_arguments_end_with_one_line_and_status_2(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[object], message: str
) -> None:
    status, out, error = run(*(str(argument).format(empty=tmp_path) for argument in arguments))
    assert (status, out) == (2, "") and error.startswith("error: ") and error.count("\n") == 1
    assert message.format(empty=tmp_path) in error


def test_a_missing_extra_is_one_line_also_when_the_job_has_begun(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_torch(options: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("mtl_core.jobs.tag.main", needs_torch)
    status, _, error = run("tag", SONG, *MODEL)
    assert (status, error) == (2, "error: tag needs torch: pip install 'mtl-core[train]' [exit status 2]\n")


def test_help_lists_every_command_and_each_has_its_own(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run("--help")
    assert status == 0 and all(command in out for command in __main__.COMMANDS)
    files = (Path(__main__.__file__).parent / "jobs").glob("[!_]*.py")
    assert {file.stem for file in files} == set(__main__.COMMANDS)
    for command in ("tag", "build-manifest"):
        status, out, _ = run(command, "--help")
        assert status == 0 and f"mtl-core {command.replace('-', '_')}" in out


def test_a_null_label_reads_unknown_and_a_long_one_is_cut() -> None:
    assert _cells(None, 0.25) == ("unknown", "0.25")
    assert _cells(None, None) == ("-", "")
    assert _cells("x" * 30, 1.0) == ("x" * 23 + "…", "1.00")


def test_a_file_is_tagged_without_ray_torch_or_the_tables(tmp_path: Path) -> None:
    shutil.copy(SONG, tmp_path / "song.mp3")
    code = """
import sys
from mtl_core.__main__ import main
try:
    main()
finally:
    print({"ray", "torch", "librosa", "pandas", "pyarrow", "duckdb", "deltalake", "s3fs"} & {*sys.modules})
"""
    command = [sys.executable, "-c", code, "tag", str(tmp_path / "song.mp3"), *map(str, MODEL)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Juno Linden" in ended.stdout and ended.stdout.endswith("set()\n")
