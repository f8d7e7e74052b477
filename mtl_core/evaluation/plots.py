"""Plots: the pictures of a report, as SVG that takes its colours and its font from the page around it.

Each function returns an `<svg>` element to be put into HTML. Colours are drawn as stand-ins and replaced by CSS
variables (`--ink --muted --grid --wrong --artist --language`), so that one picture is legible on light and on dark;
text stays text.
"""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

SEGMENT_S = 3
PICTURE_FRAMES = 480
INK, MUTED, GRID, WRONG = "#010101", "#010102", "#010103", "#010106"
COLOURS = {"artist": "#010104", "language": "#010105"}
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    WRONG: "wrong",
    **{colour: task for task, colour in COLOURS.items()},
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same picture, the same bytes
    "text.parse_math": False,  # an artist may be called A$AP
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
}


def average_precisions(
    task: str, names: Sequence[str], values: Sequence[float], chance: Sequence[float], support: Sequence[int]
) -> str:
    """A bar a class, best first, its chance as a tick across it.

    Args:
        task: of `COLOURS`.
        names: the classes; with as many values and chances (0 to 1) and numbers of positives.
    """
    order = sorted(range(len(names)), key=lambda i: (-values[i], names[i]))
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 0.55 + 0.2 * len(names)), layout="constrained")
        ax = figure.subplots()
        y = np.arange(len(names))
        ax.barh(y, [values[i] for i in order], height=0.62, color=COLOURS[task])
        ax.vlines([chance[i] for i in order], y - 0.42, y + 0.42, color=INK, linewidth=1.2)
        ax.set_yticks(y, [f"{_short(names[i])}  ({support[i]})" for i in order], fontsize=8)
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1))
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(axis="x", linewidth=0.6)
        return svg(figure)


def confusion(task: str, names: Sequence[str], counts_CC: np.ndarray) -> str:
    """Rows are the truth, columns what was said; shade is the share of the row, the number the count, red is wrong.

    Args:
        task: of `COLOURS`.
        names: the classes shown, in order.
        counts_CC: (C, C) numbers of tracks.
    """
    n = len(names)
    side = max(1.6, (0.16 if n > 20 else 0.2) * n)
    with rc_context(STYLE):
        figure = Figure(figsize=(side + 1.9, side + 1.9), layout="constrained")
        ax = figure.subplots()
        rows, columns = np.nonzero(counts_CC)
        share = counts_CC[rows, columns] / counts_CC.sum(1)[rows] if len(rows) else np.empty(0)
        ax.set_aspect("equal")
        cells = [Rectangle((c - 0.5, r - 0.5), 1, 1) for r, c in zip(rows, columns, strict=True)]
        colours = [COLOURS[task] if r == c else WRONG for r, c in zip(rows, columns, strict=True)]
        ax.add_collection(PatchCollection(cells, facecolor=colours, alpha=0.15 + 0.6 * share, linewidth=0))
        for r, c in zip(rows, columns, strict=True):
            ax.text(float(c), float(r), f"{counts_CC[r, c]}", ha="center", va="center", fontsize=6 if n > 20 else 8)
        ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=GRID, linewidth=0.6, zorder=0)
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="said", ylabel="true")
        size = 6 if n > 20 else 8
        ax.set_xticks(range(n), [_short(name) for name in names], rotation=90, fontsize=size)
        ax.set_yticks(range(n), [_short(name) for name in names], fontsize=size)
        ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.tick_params(which="both", length=0)
        ax.grid(which="minor", linewidth=0.4)
        ax.spines[:].set_visible(False)
        return svg(figure)


def plot_reliability(task: str, bins: Sequence[Mapping[str, float]]) -> str:
    """Confidence against the share that is right, a point a bin, above how many tracks each bin holds."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.4), layout="constrained")
        ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        ax.vlines(x, x, y, color=COLOURS[task], linewidth=1)
        ax.scatter(x, y, s=36, color=COLOURS[task], zorder=3, clip_on=False)
        ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
        below.bar(
            [(b["low"] + b["high"]) / 2 for b in bins],
            [b["count"] for b in bins],
            [0.9 * (b["high"] - b["low"]) for b in bins],
            color=COLOURS[task],
        )
        below.set(xlabel="confidence", ylabel="tracks")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        below.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        return svg(figure)


def training_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss by epoch, the least validation loss marked.

    Args:
        history: an epoch each: `epoch`, and `train_loss` and `validation_loss` (nats) where they are known.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        ax = figure.subplots()
        for name, colour in (("train", MUTED), ("validation", COLOURS["artist"])):
            points = [(h["epoch"], h[f"{name}_loss"]) for h in history if h.get(f"{name}_loss") is not None]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=colour, linewidth=1.8, marker="o" if len(points) < 3 else None)
            ax.annotate(
                f" {name}", (x[-1], y[-1]), color=colour, xytext=(4, 0), textcoords="offset points", va="center"
            )
            if name == "validation":
                best = int(np.argmin(y))
                ax.scatter([x[best]], [y[best]], s=42, color=colour, zorder=3)
                _beside(ax, f"best: epoch {x[best]}", x[best], y[best])
        ax.set(xlabel="epoch", ylabel="loss (nats)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.margins(x=0.02)
        ax.grid(axis="y", linewidth=0.6)
        return svg(figure)


def audio_heard(task: str, heard: Sequence[Mapping[str, Any]]) -> str:
    """Track scores against the seconds heard.

    Args:
        task: of `COLOURS`.
        heard: a step each, `segments` rising: `auc_pr_macro` and `top_1` (0 to 1, or None) and their `ci`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        ax = figure.subplots()
        lines = (("auc_pr_macro", "AUC-PR, macro", COLOURS[task], "-"), ("top_1", "top-1", INK, (0, (4, 2))))
        for key, name, colour, style in lines:
            steps = [step for step in heard if step[key] is not None]
            if not steps:
                continue
            x, y = [SEGMENT_S * step["segments"] for step in steps], [step[key] for step in steps]
            ax.plot(x, y, color=colour, linewidth=1.8, linestyle=style, marker="o", markersize=4, label=name)
            if all(step["ci"].get(key) for step in steps):
                low, high = zip(*(step["ci"][key] for step in steps), strict=True)
                ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.set_xscale("log")
        ax.set_xticks([SEGMENT_S * step["segments"] for step in heard])
        ax.set_xticklabels([f"{SEGMENT_S * step['segments']:g}" for step in heard])
        ax.minorticks_off()
        ax.set(xlabel="seconds heard", ylim=(0, 1))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        ax.legend()
        return svg(figure)


def class_curves(
    task: str,
    names: Sequence[str],
    curves: Sequence[Mapping[str, Sequence[float]]],
    scores: Sequence[tuple[float | None, float | None]],
) -> str:
    """A small panel a class: precision over recall, and the ROC curve.

    Args:
        task: of `COLOURS`.
        names: the classes, with as many of the others.
        curves: of `areas.curves`.
        scores: average precision and area under the ROC curve, 0 to 1.
    """
    columns = min(8, len(names))
    wide, high = 1.28, 1.62  # from panel to panel, a panel being 1 x 1
    lines: dict[str, list[np.ndarray]] = {GRID: [], MUTED: [], COLOURS[task]: []}
    with rc_context(STYLE):
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(1.05 * wide * columns, 1.05 * high * rows), layout="constrained")
        ax = figure.subplots()
        for i, (name, curve, (ap, roc)) in enumerate(zip(names, curves, scores, strict=True)):
            x, y = wide * (i % columns), -high * (i // columns)
            corner = np.array([x, y])
            lines[GRID] += [corner + _BOX, corner + _BOX[::2]]
            lines[MUTED].append(corner + np.column_stack([curve["fpr"], curve["tpr"]]))
            lines[COLOURS[task]].append(corner + np.column_stack([curve["recall"], curve["precision"]]))
            shown = " / ".join("\N{EN DASH}" if score is None else f"{100 * score:.0f}" for score in (ap, roc))
            ax.text(x, y + 1.05, shown, fontsize=6.5, color=MUTED, va="bottom")
            ax.text(x, y + 1.24, _short(name, 17), fontsize=7, va="bottom")
        for colour, of_colour in lines.items():
            ax.add_collection(LineCollection(of_colour, colors=colour, linewidths=0.6 if colour == GRID else 1.3))
        ax.set(xlim=(-0.05, wide * columns), ylim=(-high * (rows - 1) - 0.05, 1.45), aspect="equal")
        ax.axis("off")
        return svg(figure)


_BOX = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]], float)


def mel_picture(mel_TF: np.ndarray) -> str:
    """A log-mel spectrogram (T, F) as a data URI of a PNG, at most `PICTURE_FRAMES` wide: frames are averaged."""
    n = min(PICTURE_FRAMES, len(mel_TF))
    edges = np.linspace(0, len(mel_TF), n + 1).astype(int)[:-1]
    pooled_TF = np.add.reduceat(mel_TF.astype(np.float32), edges) / np.diff(np.append(edges, len(mel_TF)))[:, None]
    out = io.BytesIO()
    imsave(out, pooled_TF.T, cmap="magma", origin="lower", format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _beside(ax: Axes, text: str, x: float, y: float) -> None:
    ax.annotate(text, (x, y), xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    ax.margins(y=0.15)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def svg(figure: Figure) -> str:
    """The picture as an element, its stand-ins replaced by the variables of the page."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # only the measuring font lacks it, the reader's does not
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    return svg
