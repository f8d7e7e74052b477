"""A local Ray that does not start in time ends the job in one line, which a supervisor takes for status 1."""

import inspect

import pytest
import ray
from ray._private import node, services

from mtl_core.errors import RunError
from mtl_core.pipelines.workers import cluster


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because some of the raylet\n failed"),
        TimeoutError("Timed out after 30 seconds while waiting for node to startup. Did not find socket name /tmp/x"),
    ],
)
def test_a_ray_that_does_not_start_in_time_is_a_run_that_failed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_out(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", time_out)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = r"the machine may be busy: .* startup.*: the same command resumes$"
    with pytest.raises(RunError, match=line), cluster.connected():
        pass


def test_another_error_of_ray_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="a bug"), cluster.connected():
        pass


def test_ray_still_has_these_messages() -> None:
    source = " ".join((inspect.getsource(node) + inspect.getsource(services)).split())
    for text in cluster.SLOW_START:
        assert text in source
