"""Run a job and interrupt it at a point of its work: python killed_job.py POINT HOW DECODER JOB.py [FLAGS …]

POINT    `module:function@text:when[:count]`: the count-th call of the function (default 1) that has `text` in one of
         its arguments. `when` is `enter`, `exit`, or a number of milliseconds after the call has begun (for functions
         that are not written in Python). `A>B` is point B, counted after point A. `never` interrupts nothing.
HOW      `driver`: SIGKILL to this process. `group`: SIGKILL to its process group (the caller starts a new session).
         `pause`: SIGSTOP. `dawdle`: sleep for DAWDLE_S (environment, default 30).
DECODER  the module whose process decodes (the `decoder` of `tag_catalogue`).

The job is the real one, with its own command line; it contains nothing for this program. The workers of a GPU run on
the CPU: a test's cluster only claims to have one.
"""

import functools
import importlib
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from mtl_core.pipelines import tag_catalogue


def arm(point: str, reached: Callable[[], None]) -> None:
    """Call `reached` when the job reaches the point."""
    first, _, rest = point.partition(">")
    if rest:
        arm(first, lambda: arm(rest, reached))
        return
    target, when, *count = first.split(":", 1)[1].rsplit(":", 2 if first.count(":") == 3 else 1)
    name, _, text = target.partition("@")
    holder: Any = importlib.import_module(first.split(":")[0])
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    function, n_left = getattr(holder, last), [int(count[0]) if count else 1]

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        matches = text in repr([str(value) for value in [*args, *kwargs.values()]])
        n_left[0] -= matches
        now = matches and n_left[0] == 0
        if now and when == "enter":
            reached()
        elif now and when != "exit":
            threading.Timer(float(when) / 1000, reached).start()
        result = function(*args, **kwargs)
        if now and when == "exit":
            reached()
        return result

    setattr(holder, last, wrapped)


def interrupt(how: str) -> None:
    match how:
        case "driver":
            os.kill(os.getpid(), signal.SIGKILL)
        case "group":
            os.killpg(0, signal.SIGKILL)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "dawdle":
            time.sleep(float(os.environ.get("DAWDLE_S", "30")))


if __name__ == "__main__":
    point, how, decoder, *sys.argv = sys.argv[1:]
    tag_catalogue.tag_catalogue = functools.partial(tag_catalogue.tag_catalogue, decoder=decoder, gpu_device="cpu")
    if point != "never":
        arm(point, lambda: interrupt(how))
    runpy.run_path(sys.argv[0], run_name="__main__")
