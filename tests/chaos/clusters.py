"""Ray clusters that a test starts for itself, beside whatever else runs on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray
from points import TAGGING_ACTOR
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

HERE = Path(__file__).parent
CLUSTER = "MTL_TEST_CLUSTER"  # a variable that a test sets, so that it tells the processes of its cluster from others
RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _started(*flags: str, prefix: Sequence[str] = (), **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [*prefix, RAY, "start", "--block", *(f"--temp-dir={folder}" for _ in [0] if "--head" in flags), *flags],
            env=os.environ
            | {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
            | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], signal_number: signal.Signals = signal.SIGTERM) -> None:
    """End a `ray start --block` and every process that it started; they share one session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal_number)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def head(
    num_cpus: int, *flags: str, object_store_bytes: int = 200_000_000, prefix: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """A cluster of one node; yields the environment of a process that joins it.

    Args:
        flags: more of `ray start`.
        prefix: a command that starts it.
    """
    port = free_port()
    with _started("--head", f"--num-cpus={num_cpus}", f"--port={port}", "--node-ip-address=127.0.0.1",
                  "--include-dashboard=false", f"--ray-client-server-port={free_port()}",
                  f"--object-store-memory={object_store_bytes}", *flags, prefix=prefix):  # fmt: skip
        _wait_for(port)
        yield {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "disabled"}


#: Lists that the configuration of an autoscaler must have; they stay empty.
_COMMANDS = (
    "cluster_synced_files rsync_exclude rsync_filter initialization_commands setup_commands head_setup_commands"
    " worker_setup_commands head_start_ray_commands worker_start_ray_commands"
).split()


@contextlib.contextmanager
def growing(folder: Path, max_nodes: int) -> Iterator[dict[str, str]]:
    """A cluster whose head has no CPU and whose autoscaler starts nodes of one CPU on this machine on demand."""
    port = free_port()
    config = {
        "cluster_name": "growing",
        "max_workers": max_nodes,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "external",
            "module": "sized_nodes.SizedNodes",
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {}, "node_config": {}, "max_workers": 0},
            "cpu": {
                "resources": {"CPU": 1, "memory": 1 << 30, "object_store_memory": 200_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
    } | {name: [] for name in _COMMANDS}
    (folder / "autoscaling.yaml").write_text(json.dumps(config))
    with _started("--head", "--num-cpus=0", f"--port={port}", "--node-ip-address=127.0.0.1",
                  "--include-dashboard=false", f"--ray-client-server-port={free_port()}",
                  "--object-store-memory=200000000", f"--autoscaling-config={folder / 'autoscaling.yaml'}",
                  RAY_FAKE_CLUSTER="1", RAY_NODE_TYPE_NAME=FAKE_HEAD_NODE_TYPE, RAY_CLOUD_INSTANCE_ID=FAKE_HEAD_NODE_ID,
                  RAY_OVERRIDE_NODE_ID_FOR_TESTING=FAKE_HEAD_NODE_ID, AUTOSCALER_UPDATE_INTERVAL_S="1"):  # fmt: skip
        _wait_for(port)
        yield {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "disabled"}


@contextlib.contextmanager
def node(address: str, num_cpus: int) -> Iterator[subprocess.Popen[bytes]]:
    """Add a node to a cluster."""
    with _started(f"--address={address}", f"--num-cpus={num_cpus}", "--object-store-memory=200000000") as process:
        yield process


@contextlib.contextmanager
def joined(env: dict[str, str]) -> Iterator[None]:
    """This process joins the cluster."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in env.items():
            patched.setenv(name, value)
        ray.init(logging_level="ERROR", log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()


def tagging_processes(cluster: str) -> list[int]:
    """Process ids of the actors that tag, on the cluster that was started with this value of `CLUSTER`."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # no process, or one that has ended
            is_actor = (folder / "cmdline").read_text().startswith(TAGGING_ACTOR)
            if is_actor and f"{CLUSTER}={cluster}\0" in (folder / "environ").read_text(errors="replace"):
                found.append(int(folder.name))
    return found


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)
