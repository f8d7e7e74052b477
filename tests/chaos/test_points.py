"""The points at which the chaos tests interrupt a job exist."""

import functools
import importlib

import points
import pytest

TARGETS = {value for name, value in vars(points).items() if name.isupper() and isinstance(value, str)}
POINTS = {p for phase in points.PHASES.values() for p in phase}
POINTS |= {*points.FORGETTING, *points.PRUNING, *points.REMOVING, *points.PURGING}
STEPS = {step for name in TARGETS | POINTS for step in name.split(">")}
FUNCTIONS = sorted({":".join(step.split("@")[0].split(":")[:2]) for step in STEPS if not step.startswith("ray::")})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_function_of_a_point_exists(function: str) -> None:
    module, _, name = function.partition(":")
    assert callable(functools.reduce(getattr, name.split("."), importlib.import_module(module)))
