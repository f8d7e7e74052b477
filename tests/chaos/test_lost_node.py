"""A node is lost by `kill -9` of its raylet at a random moment of a night: the night ends exact, without a person.

`REPEATS=10 python -m pytest -m slow tests/chaos/test_lost_node.py -s` runs ten nights, each of which loses a node.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from clusters import head, joined, node
from nightly import Nights, assert_exact, count_done_shards, decode_counts, start, two_nights, wait_for
from test_mass_loss import count_nodes

REPEATS = int(os.environ.get("REPEATS", "3"))
N_SHARDS = 16  # of the night


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), 576)


def raylet_of(session: int) -> int:
    """The process id of the raylet that a `ray start` has started."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            name, after = fields.partition("(")[2].rpartition(")")[::2]
            if name == "raylet" and int(after.split()[3]) == session:
                return int(folder.name)
    raise AssertionError(f"no raylet in session {session}")


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_a_night_that_loses_a_node_at_a_random_moment_ends_exact(nights: Nights, repeat: int) -> None:
    """A head with one CPU and two nodes with one; the driver is on the head."""
    out = nights.out(f"lost {repeat}")
    (nights.root / "decoded.log").unlink(missing_ok=True)
    command = nights.command(out)
    command[command.index("--num-workers") + 1] = "3"
    chosen, then_s = random.randrange(N_SHARDS), random.uniform(0, 1)
    with (
        head(num_cpus=1) as env,
        joined(env),
        node(env["RAY_ADDRESS"], num_cpus=1) as lost,
    ):
        wait_for(lambda: count_nodes() == 2, timeout_s=120)
        with node(env["RAY_ADDRESS"], num_cpus=1):
            wait_for(lambda: count_nodes() == 3, timeout_s=120)
            job = start("never", "driver", command, env)
            wait_for(lambda: count_done_shards(out) >= chosen or job.poll() is not None, timeout_s=300)
            time.sleep(then_s)
            n_done, is_over = count_done_shards(out), job.poll() is not None
            os.kill(raylet_of(lost.pid), signal.SIGKILL)
            stdout, stderr = job.communicate(timeout=400)
    assert job.returncode == 0, stderr
    assert_exact(nights, out)
    n_repeated = sum(count - 1 for count in decode_counts(nights).values())
    summary = next(line for line in stdout.splitlines() if line.startswith("run "))
    when = "after the end" if is_over else f"at {n_done} of {N_SHARDS} shards"
    print(f"a node lost {when}: {summary}; {n_repeated} decodings were repeated", flush=True)
