"""Cluster: the Ray that a pipeline runs on.

A pipeline joins the cluster that `RAY_ADDRESS` names (`ray job submit` sets it). Otherwise it starts a local Ray and
ends it.
"""

import contextlib
import importlib
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

import mtl_core
from mtl_core import termination
from mtl_core.errors import InputError, RunError, one_line

if TYPE_CHECKING:
    import ray.data

#: For this process and for the workers, whose output comes here. Set any of them to see more of Ray.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",  # Ray Data warns that its progress bars are off: the jobs show their own
}
#: A local Ray adds no nodes. With version 1 of the autoscaler, Ray 2.60's default, it takes a second longer to end.
_LOCAL = {"RAY_enable_autoscaler_v2": "1"}
#: In Ray's messages of a node that is not ready within its 30 s, of an `Exception` or a `TimeoutError`.
SLOW_START = ("timed out during startup", "waiting for node to startup")
_SUBMISSION = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of a submitted job


@contextlib.contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Run the body on a cluster. If Ray is already initialised (a test's), it is used as it is.

    Args:
        num_cpus: the least number of logical CPUs of a local Ray, which has at least 2 and as many as the machine.

    Raises:
        InputError: `RAY_ADDRESS` names a cluster that does not answer, or the temporary folder's name is too long.
        RunError: a local Ray has not started in time.
    """
    if ray.is_initialized():
        _silence_ray_data()
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    for name, value in (_QUIET if address else _QUIET | _LOCAL).items():
        os.environ.setdefault(name, value)
    # Ray Data takes half a second to import, and Ray takes longer to start: do both at the same time.
    threading.Thread(target=importlib.import_module, args=("ray.data",)).start()
    with termination.handler_replaced():
        if address:
            _join(address)
        else:
            _start_local(max(2, os.cpu_count() or 1, num_cpus or 0))
    _silence_ray_data()
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    _check_answers(address)
    # Workers run the package of this process, whatever their node has installed. A submission that came with code has
    # it on the path of every worker already, and Ray refuses to be given another.
    came_with_code = _submission().keys() & {"working_dir", "py_modules"}
    package = {} if came_with_code else {"py_modules": [str(Path(mtl_core.__file__).parent)]}
    try:
        ray.init(address=address, runtime_env=package | {"env_vars": _QUIET}, logging_level="ERROR")
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise InputError(f"RAY_ADDRESS={address}: {one_line(error)}") from None


def is_submitted() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster. There is no public way to ask."""
    return _SUBMISSION in os.environ


def _submission() -> dict[str, Any]:
    """The runtime environment of the submission that started this process; empty without one."""
    return json.loads(os.environ.get(_SUBMISSION, "{}")).get("runtime_env") or {}


def _start_local(num_cpus: int) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level="ERROR",
            # In workers too: an actor of Ray Train warns each second that there is no dashboard to ask.
            logging_config=ray.LoggingConfig(log_level="ERROR"),
        )
    except Exception as error:
        if any(text in str(error) for text in SLOW_START):
            message = f"the local Ray has not started in time, the machine may be busy: {one_line(error)}"
            raise RunError(f"{message}: the same command resumes") from None
        if not isinstance(error, OSError) or "AF_UNIX path length" not in str(error):
            raise
        folder = tempfile.gettempdir()
        raise InputError(
            f"TMPDIR={folder}: its {len(folder)} characters are too many for the paths of Ray's sockets; allowed are "
            "about 40"
        ) from error


def _check_answers(address: str) -> None:
    """Check that something listens at `RAY_ADDRESS`: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():  # not "auto" or "local"
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise InputError(f"RAY_ADDRESS={address}: no cluster answers there: {error}") from None


def _silence_ray_data() -> None:
    """Turn off Ray Data's progress bars and execution plans: the jobs show their own progress."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The variable has no effect where ray.data was imported before it was set.
    logging.getLogger("ray.data").setLevel(os.environ.get("RAY_DATA_LOG_LEVEL", _QUIET["RAY_DATA_LOG_LEVEL"]))


def actor_pool(workers: int, n_items: int, *, concurrency: int = 1) -> "ray.data.ActorPoolStrategy":
    """The compute strategy of a stage of a pipeline: a fixed pool of actors.

    Args:
        workers: actors, but never more than there are items.
        n_items: that the stage takes.
        concurrency: calls that an actor works on at the same time, each in a thread.
    """
    return ray.data.ActorPoolStrategy(
        size=min(workers, n_items),
        max_tasks_in_flight_per_actor=2,
        max_concurrent_calls_per_actor=concurrency,
        enable_true_multi_threading=concurrency > 1,
    )
