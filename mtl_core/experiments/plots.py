"""Pictures of an experiment, as `plots` makes them: gains with their intervals, training curves, alpha."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mtl_core.evaluation.plots import COLOURS, INK, MUTED, STYLE, svg

Histories = Sequence[Sequence[Mapping[str, Any]]]


def gains(rows: Sequence[tuple[str, str, float, Sequence[float] | None]]) -> str:
    """A line a difference: the value, its interval, and 0.

    Args:
        rows: (name, task, difference, interval or None), shares.
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


def histories(runs: Mapping[str, Histories]) -> str:
    """A panel a model: every run's training (dashed) and validation loss, and the validation top-1 of its tasks.

    Args:
        runs: model -> the history of each of its runs: `epoch`, `train_loss`, `validation_loss`, `top1`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(runs), 4.6), layout="constrained")
        panels = figure.subplots(2, len(runs), squeeze=False, sharex="col")
        for (name, of_model), (above, below) in zip(runs.items(), panels.T, strict=True):
            for history in of_model:
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


def alphas(
    points: Mapping[str, Sequence[tuple[float, float, Sequence[float] | None]]], alone: Mapping[str, float | None]
) -> str:
    """Track AUC-PR of each task against alpha.

    Args:
        points: task -> (alpha, score, interval or None), alpha rising.
        alone: task -> the score of the model of that task alone, where there is one.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        ax = figure.subplots()
        known = sorted({alpha for of_task in points.values() for alpha, _, _ in of_task})
        place = {alpha: at for at, alpha in enumerate(known)}  # as names: 0 has no place on a logarithmic axis
        for (task, of_task), aside in zip(points.items(), (-0.04, 0.04), strict=False):
            x = [place[alpha] + aside for alpha, _, _ in of_task]
            ax.plot(x, [score for _, score, _ in of_task], "o-", color=COLOURS[task], linewidth=1.8, label=task)
            for at, (_, _, ci) in zip(x, of_task, strict=True):
                if ci is not None:
                    ax.vlines(at, *ci, color=COLOURS[task], linewidth=2.4, alpha=0.4)
            if (score := alone.get(task)) is not None:
                ax.axhline(score, color=COLOURS[task], linewidth=1.2, linestyle="--", label=f"{task}-only")
        ax.set_xticks(range(len(known)), [f"{alpha:g}" for alpha in known])
        ax.set(xlabel="alpha, the weight of the language loss", ylabel="AUC-PR macro, tracks", ylim=(0, None))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(axis="y", linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)
