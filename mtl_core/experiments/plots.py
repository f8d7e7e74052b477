"""Plots of an experiment, as SVG like `evaluation.pages.plots`: differences, training histories, scores by alpha.

Scores and differences are shares, -1 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mtl_core.evaluation.pages.plots import COLOURS, INK, MUTED, STYLE, svg

#: the histories of several runs; a history has for each epoch `epoch`, `train_loss`, `validation_loss` and `top1`
Histories = Sequence[Sequence[Mapping[str, Any]]]


def plot_differences(rows: Sequence[tuple[str, str, float, Sequence[float] | None]]) -> str:
    """A line for each difference of macro AUC-PR on tracks, with its interval.

    A row is (name, task, difference, interval or None).
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.7 + 0.34 * len(rows)), layout="constrained")
        ax = figure.subplots()
        ax.axvline(0, color=INK, linewidth=1)
        for y, (_, task, value, ci) in enumerate(rows):
            if ci is not None:
                ax.hlines(y, *ci, color=COLOURS[task], linewidth=2.4, alpha=0.55)
            ax.plot(value, y, "o", color=COLOURS[task], markersize=7)
        ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel="AUC-PR macro on tracks, difference in points")
        ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}" if abs(x) > 1e-9 else "0")
        ax.grid(axis="x", linewidth=0.6)
        return svg(figure)


def plot_histories(runs: Mapping[str, Histories]) -> str:
    """A column for each model: the training (dashed) and validation loss of every run, and its validation top-1."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(runs), 4.6), layout="constrained")
        panels = figure.subplots(2, len(runs), squeeze=False, sharex="col")
        for (name, model_histories), (above, below) in zip(runs.items(), panels.T, strict=True):
            for history in model_histories:
                _plot_line(above, history, [h.get("train_loss") for h in history], MUTED, "--")
                _plot_line(above, history, [h.get("validation_loss") for h in history], INK)
                for task, colour in COLOURS.items():
                    _plot_line(below, history, [h.get("top1", {}).get(task) for h in history], colour)
            above.set_title(name, fontsize=10, loc="left")
            above.set(ylim=(0, None))
            below.set(ylim=(0, 1), xlabel="epoch")
            below.yaxis.set_major_formatter(PercentFormatter(1, 0))
            below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            for ax in (above, below):
                ax.grid(axis="y", linewidth=0.6)
        panels[0, 0].set_ylabel("loss (nats)")
        panels[1, 0].set_ylabel("top-1, validation segments")
        return svg(figure)


def _plot_line(
    ax: Any, history: Sequence[Mapping[str, Any]], values: Sequence[float | None], colour: str, style: str = "-"
) -> None:
    points = [(h["epoch"], value) for h, value in zip(history, values, strict=True) if value is not None]
    if points:
        ax.plot(*np.array(points).T, color=colour, linewidth=1, linestyle=style, alpha=0.75)


def plot_alphas(
    points: Mapping[str, Sequence[tuple[float, float, Sequence[float] | None]]], single_task: Mapping[str, float | None]
) -> str:
    """Macro AUC-PR on tracks of each task against alpha.

    Args:
        points: task -> (alpha, score, interval or None), in order of alpha.
        single_task: task -> the score of the model of this task only, if there is one.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        ax = figure.subplots()
        alphas = sorted({alpha for task_points in points.values() for alpha, _, _ in task_points})
        position = {alpha: i for i, alpha in enumerate(alphas)}  # categories: a logarithmic axis has no 0
        for (task, task_points), shift in zip(points.items(), (-0.04, 0.04), strict=False):
            x = [position[alpha] + shift for alpha, _, _ in task_points]
            ax.plot(x, [score for _, score, _ in task_points], "o-", color=COLOURS[task], linewidth=1.8, label=task)
            for alpha_x, (_, _, ci) in zip(x, task_points, strict=True):
                if ci is not None:
                    ax.vlines(alpha_x, *ci, color=COLOURS[task], linewidth=2.4, alpha=0.4)
            if (score := single_task.get(task)) is not None:
                ax.axhline(score, color=COLOURS[task], linewidth=1.2, linestyle="--", label=f"{task}-only")
        ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        ax.set(xlabel="alpha, the weight of the language loss", ylabel="AUC-PR macro, tracks", ylim=(0, None))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(axis="y", linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)
