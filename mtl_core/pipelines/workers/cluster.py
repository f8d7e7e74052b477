"""Cluster: the Ray that a pipeline runs on, and what a pipeline may ask of it.

A pipeline joins the cluster that `RAY_ADDRESS` names (`ray job submit` sets it), or runs a Ray of its own on this
machine and ends it. Reads, actors and writes each hold a logical CPU, and pools that hold all of them hang a small
machine: a Ray of our own is started with as many logical CPUs as the pipeline says it needs, whatever the machine has.
"""

import contextlib
import importlib
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ray
from ray._private import ray_constants

import mtl_core
from mtl_core.errors import InputError


@contextlib.contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Run the body on a cluster; one that is already connected (a test's) is used as it is.

    Args:
        num_cpus: logical CPUs that a local Ray must have at the least; never fewer than 2 or than the machine has.
    """
    if ray.is_initialized():
        silence_ray_data()
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Ray Data takes half a second to import, and Ray longer to start: the two share the time.
    threading.Thread(target=importlib.import_module, args=("ray.data",)).start()
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_answers(address)
        submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the submission's working folder is on every path
        package = {} if submitted else {"py_modules": [str(Path(mtl_core.__file__).parent)]}
        ray.init(address=address, runtime_env=package | {"env_vars": _QUIET}, logging_level=logging.ERROR)
    else:
        # Version 1 of the autoscaler, which has nothing to do here, makes every Ray a second slower to end.
        os.environ.setdefault("RAY_enable_autoscaler_v2", "1")
        ray_constants.AUTOSCALER_EVENTS = 0  # read from the environment at import: no nodes can be added to a machine
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 1, num_cpus or 0),
            include_dashboard=False,
            logging_level=logging.ERROR,
            # In workers too: an actor of Ray Train warns each second that there is no dashboard to ask.
            logging_config=ray.LoggingConfig(log_level="ERROR"),
        )
    silence_ray_data()
    try:
        with _without_noise(_NOISE):
            yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        InputError: nothing listens where `RAY_ADDRESS` says.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():  # and not "auto" or "local"
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise InputError(f"RAY_ADDRESS={address}: no cluster answers there: {error}") from None


#: For this process and for the workers, whose output comes to it.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "WARNING"}

#: Warnings and "errors" of Ray 2.60 about what it, or this file, chose: the constructor arguments of Ray Data's actor
#: pools, the bars that are off, the many workers of a small machine.
_NOISE = (
    rb"has constructor arguments in the object store|Progress bars disabled|PYTHON worker processes have been started"
)


@contextlib.contextmanager
def _without_noise(noise: bytes) -> Iterator[None]:
    """Leave lines with `noise` out of what the process writes to its standard error, the core past Python's logging."""
    lines = re.compile(rb"[^\n]*(" + noise + rb")[^\n]*(\n|$)")
    sys.stderr.flush()
    terminal = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)

    def pass_on() -> None:
        within = False  # a noisy line, whose end was not read yet
        while chunk := os.read(source, 65536):
            heard = chunk if not within else chunk.partition(b"\n")[2]
            within = (within and b"\n" not in chunk) or bool(re.search(noise, heard.rpartition(b"\n")[2]))
            with contextlib.suppress(OSError):  # nobody reads any more: go on, or the job would wait for them
                os.write(terminal, lines.sub(b"", heard))

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)  # the pipe's last writing end: the thread reads what is left and ends
        thread.join(timeout=5)
        os.close(source)


def silence_ray_data() -> None:
    """Keep Ray Data's bars and its execution plans off the terminal; its warnings and errors stay."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def require_workers(asked: int | None, *, num_cpus: float = 1, num_gpus: float = 0, all_at_once: bool = False) -> int:
    """How many workers to start: as many as are asked for, else as many as the nodes hold now.

    A cluster that grows on demand is believed to grow to whatever is asked for. Of one that does not, some workers are
    enough, as the nodes of the others may come back; one that cannot hold a single one never will.

    Args:
        asked: None: one for each that fits; in a Ray of our own, not more than the machine has CPUs.
        num_cpus, num_gpus: of one worker.
        all_at_once: some are not enough.

    Raises:
        InputError: the cluster cannot hold them, or it holds none now and nobody said how many.
    """
    needs = {"CPU": num_cpus, "GPU": num_gpus}
    held = _capacity(needs)
    wanted = asked or 1
    if asked is None and not held and is_autoscaling():
        raise InputError("the cluster has no room now and grows on demand: say to how many workers, --num-workers N")
    if wanted > held and not is_autoscaling():
        each = " and ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
        has = ", ".join(f"{ray.cluster_resources().get(name, 0):g} {name}s" for name in needs)
        missing = f"{wanted} workers of {each} each: the cluster has room for {held} ({has} in all)"
        if not held or all_at_once:
            raise InputError(missing)
        print(f"warning: {missing}; the others wait", file=sys.stderr)
    if asked is not None:
        return asked
    return held if os.environ.get("RAY_ADDRESS") else min(held, os.cpu_count() or 1)


def cpus_per_worker(workers: int, *, num_gpus: int = 0) -> float:
    """The CPUs, one or a part of one, that each of so many workers can have which must run at once.

    Raises:
        InputError: the cluster cannot hold them.
    """
    shares = (1.0, 0.5, 0.25, 0.1)
    share = next(
        (cpus for cpus in shares if is_autoscaling() or _capacity({"CPU": cpus, "GPU": num_gpus}) >= workers),
        shares[-1],
    )
    require_workers(workers, num_cpus=share, num_gpus=num_gpus, all_at_once=True)
    return share


def _capacity(needs: dict[str, float]) -> int:
    """How many workers with these needs the nodes hold now."""
    return sum(
        min(int(node["Resources"].get(name, 0) / amount + 1e-9) for name, amount in needs.items() if amount)
        for node in ray.nodes()
        if node["Alive"]
    )


def is_autoscaling() -> bool:
    """Whether an autoscaler starts nodes on demand: those it starts carry a label that no others have."""
    return any("ray.io/node-group" in node["Labels"] for node in ray.nodes() if node["Alive"])


def gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
