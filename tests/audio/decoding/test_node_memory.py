"""Turns are shared by all processes of a node, and end with their process."""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mtl_core.audio.decoding import node_memory
from mtl_core.audio.decoding.node_memory import MemoryTurn, find_memory
from mtl_core.errors import TrackError

GIB = 1 << 30
HOLD = """
from mtl_core.audio.decoding.node_memory import MemoryTurn
turn = MemoryTurn(1 << 50)
print(flush=True)
input()
"""


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that no other test shares."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def taken_in_a_thread(n_bytes: int) -> tuple[threading.Thread, list[MemoryTurn]]:
    turns: list[MemoryTurn] = []
    thread = threading.Thread(target=lambda: turns.append(MemoryTurn(n_bytes)))
    thread.start()
    thread.join(0.3)
    return thread, turns


def test_the_memory_of_this_machine_is_found() -> None:
    total, free = find_memory()
    assert 0 < free < total


def test_as_many_turns_are_given_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 of 10 GiB are free, and 0.8 are in reserve: two turns of 2 GiB; of 8 GiB one all the same."""
    monkeypatch.setattr(node_memory, "find_memory", lambda: (10 * GIB, 5 * GIB))
    first, second = MemoryTurn(2 * GIB), MemoryTurn(2 * GIB)
    thread, third = taken_in_a_thread(2 * GIB)
    assert not third
    second.end()
    thread.join(5)
    assert len(third) == 1
    thread, large = taken_in_a_thread(8 * GIB)
    assert not large
    first.end()
    thread.join(5)
    assert len(large) == 1
    for turn in (*third, *large):
        turn.end()


def test_a_killed_process_gives_up_its_turn() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        thread, turns = taken_in_a_thread(1 << 50)
        assert not turns
        other.kill()
        thread.join(5)
    assert len(turns) == 1
    turns[0].end()


def test_a_temporary_folder_that_cannot_be_used_is_not_a_track_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(TrackError, match=r"no turn for a large decoder: .*No such file or directory") as error:
        MemoryTurn(1 << 50)
    assert (error.value.stage, error.value.error) == ("fetch", "unavailable")


def test_a_turn_has_to_end_where_the_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = MemoryTurn(GIB)
    monkeypatch.setattr(node_memory, "find_memory", lambda: (10 * GIB, GIB))
    turn.check()
    monkeypatch.setattr(node_memory, "find_memory", lambda: (10 * GIB, GIB // 2))
    with pytest.raises(
        TrackError, match="512 of the node's 10240 MiB of memory were left: 8% have to stay free"
    ) as error:
        turn.check()
    assert (error.value.error, error.value.permanent) == ("killed", False)
    turn.end()


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_of_machine_and_control_groups_counts(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group above this process's has 1 GiB, of which 0.75 are used, 0.25 of that by pages of files."""
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    folder = tmp_path / ("memory/pod" if version == 1 else "pod")
    (folder / "container").mkdir(parents=True)
    for group, limit in ((folder, str(GIB)), (folder / "container", str(1 << 62) if version == 1 else "max")):
        (group / names[0]).write_text(f"{limit}\n")
        (group / names[1]).write_text(f"{3 * GIB // 4}\n")
        stat = f"inactive_file {GIB // 8}\nactive_file {GIB // 8}\n"
        (group / "memory.stat").write_text(stat.replace("in", "total_in").replace("\nac", "\ntotal_ac"))
        if version == 2:
            (group / "memory.stat").write_text(stat)
    own = "4:memory:/pod/container\n" if version == 1 else "0::/pod/container\n"
    read_text = Path.read_text
    monkeypatch.setattr(node_memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda path: own if str(path) == "/proc/self/cgroup" else read_text(path))
    assert find_memory() == (GIB, GIB // 2)
