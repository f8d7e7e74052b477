"""A job that is killed at a point of its own work: python killed_job.py POINT HOW DECODER JOB.py [FLAGS …]

POINT is `module:name@text:when[:count]`: at the count-th call of that function with `text` among its arguments, on its
`enter`, on its `exit`, or, for what is not Python inside, a number of milliseconds after its start. `A>B` is B, counted
from A on; `never` leaves the job alone. HOW is `driver`, SIGKILL of this process alone, `group`, of its process group
(the caller starts it in a new session), `pause`, SIGSTOP, or `dawdle`, half a minute's sleep. DECODER is the module
whose process decodes (`Tagging.decoder`).

The job itself is the real one, run by its own command line; nothing in it knows of this.
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
    """Call `reached` when the point comes."""
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
    real, left = getattr(holder, last), [int(count[0]) if count else 1]

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        here = text in repr([str(value) for value in [*args, *kwargs.values()]])
        left[0] -= here
        now = here and left[0] == 0
        if now and when == "enter":
            reached()
        elif now and when != "exit":
            threading.Timer(float(when) / 1000, reached).start()
        result = real(*args, **kwargs)
        if now and when == "exit":
            reached()
        return result

    setattr(holder, last, wrapped)


def strike(how: str) -> None:
    match how:
        case "driver":
            os.kill(os.getpid(), signal.SIGKILL)
        case "group":
            os.killpg(0, signal.SIGKILL)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "dawdle":
            time.sleep(30)


if __name__ == "__main__":
    point, how, decoder, *sys.argv = sys.argv[1:]
    tag_catalogue.Tagging = functools.partial(tag_catalogue.Tagging, decoder=decoder)  # type: ignore[misc]
    if point != "never":
        arm(point, lambda: strike(how))
    runpy.run_path(sys.argv[0], run_name="__main__")
