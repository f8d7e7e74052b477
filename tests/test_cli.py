"""The exit status of a job is that of its work, whatever threads of its libraries still do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

READ = """
import sys
from dataclasses import dataclass
import pyarrow.dataset
from deltalake import DeltaTable
from mtl_core import cli
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_dataset

at = sys.argv.pop()
"""
AS_A_JOB = """
@dataclass(frozen=True)
class Options:
    pass

def main(options):
    assert len(DeltaTable(at).to_pyarrow_dataset().head(3)) == 3
    return 3

cli.main(main, Options)
"""
FULL_DISK = """
from dataclasses import dataclass
from mtl_core import cli

@dataclass(frozen=True)
class Options:
    pass

def main(options):
    with open("/dev/full", "w") as file:
        file.write("a")

cli.main(main, Options)
"""
WRONG_NAME = r"""
from dataclasses import dataclass
from mtl_core import cli

@dataclass(frozen=True)
class Options:
    pass

def main(options):
    raise cli.InputError("no file a\nb")

cli.main(main, Options)
"""
OUR_DATASET = "assert len(open_dataset(Location(at), DeltaTable(at)).head(3)) == 3"
DELTALAKES_OWN = "assert len(DeltaTable(at).to_pyarrow_dataset().head(3)) == 3"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of several files, of which a reader fetches more than the first rows."""
    at = tmp_path_factory.mktemp("tables") / "t"
    for _ in range(6):
        rows = pa.table({"track_id": [str(i) for i in range(50_000)], "value": np.random.rand(50_000)})
        write_deltalake(at, rows, mode="append")
    return at


def status(script: str, table: Path, timeout_s: float = 60) -> int:
    """The exit status of a process that reads a few rows and ends; -9 if it does not end."""
    command = [sys.executable, "-c", READ + script, str(table)]
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s).returncode
    except subprocess.TimeoutExpired:
        return -9


@pytest.mark.parametrize(("script", "expected"), [(AS_A_JOB, 3), (OUR_DATASET, 0)], ids=["as a job", "our dataset"])
def test_a_process_that_ends_while_arrow_still_reads_has_the_status_of_its_work(
    script: str, expected: int, table: Path
) -> None:
    assert status(script, table) == expected


@pytest.mark.slow
def test_deltalakes_own_filesystem_crashes_or_hangs_at_the_end_of_a_process(table: Path) -> None:
    """Where this fails, deltalake is mended: `open_dataset` need not name a filesystem, and tables.md not warn."""
    assert any(status(DELTALAKES_OWN, table, 20) != 0 for _ in range(6))


def test_a_full_disk_is_told_in_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("failed: [Errno 28] No space left on device: ") and ended.stderr.count("\n") == 1


def test_a_name_with_a_line_end_is_told_in_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", WRONG_NAME], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (2, "error: no file a b [exit status 2]\n")
