"""Plots: the figures of a report, as SVG in the colours and the font of the page around it.

Each function returns an `<svg>` element for an HTML page. Figures are drawn in placeholder colours, which `svg`
replaces by the page's CSS variables (`--ink --muted --grid --wrong --artist --language`). So one figure can be read on
light and dark backgrounds. Text stays text. Scores are shares, 0 to 1. `task` is a key of `COLOURS`, `names` are the
classes. A plot fills the page's width (`FULL`) or half of it (`HALF`), inches at which text has its normal size.
"""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ
from mtl_core.audio.segments import SEGMENT_SAMPLES
from mtl_core.evaluation.pages.score_text import NO_VALUE, SCORE_NAMES

SEGMENT_S = SEGMENT_SAMPLES / SAMPLE_RATE_HZ
MAX_PICTURE_WIDTH = 480  # pixels
FULL, HALF = 9.6, 4.6  # inches
INK, MUTED, GRID, WRONG = "#010101", "#010102", "#010103", "#010106"
COLOURS = {"artist": "#010104", "language": "#010105"}
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", WRONG: "wrong"} | {c: task for task, c in COLOURS.items()}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # fixed, so that the same figure has the same bytes
    "text.parse_math": False,  # names of artists may contain $: A$AP
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


def plot_average_precision(
    task: str,
    names: Sequence[str],
    values: Sequence[float],
    chance: Sequence[float],
    support: Sequence[int],
    width: float = HALF,
) -> str:
    """A bar for each class, best first, with a tick at the value of chance; in two columns on the full width.

    Args:
        values, chance: average precision of the classes, and of a random order.
        support: numbers of positive samples.
        width: inches.
    """
    order = sorted(range(len(names)), key=lambda i: (-values[i], names[i]))
    n_columns = 2 if width > HALF and len(names) > 1 else 1
    rows = -(-len(names) // n_columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(width, max(1.2, 0.55 + 0.2 * rows)), layout="constrained")
        panels = figure.subplots(1, n_columns, squeeze=False)[0]
        for column, ax in enumerate(panels):
            shown = order[column * rows : (column + 1) * rows]
            y = np.arange(len(shown))
            ax.barh(y, [values[i] for i in shown], height=0.62, color=COLOURS[task])
            ax.vlines([chance[i] for i in shown], y - 0.42, y + 0.42, color=INK, linewidth=1.2)
            ax.set_yticks(y, [f"{_short(names[i])}  ({support[i]})" for i in shown], fontsize=8)
            ax.tick_params(axis="y", length=0)
            ax.set(ylim=(rows - 0.4, -0.6), xlim=(0, 1))
            ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
            ax.grid(axis="x", linewidth=0.6)
        return svg(figure)


def plot_confusion(task: str, names: Sequence[str], counts_CC: np.ndarray) -> str:
    """Confusion matrix: numbers are counts, shades the share of the row, red cells are wrong predictions.

    Args:
        counts_CC: (C, C) numbers of tracks, by true label (rows) and predicted label (columns).
    """
    n = len(names)
    font_size = 6 if n > 40 else 8
    with rc_context(STYLE):
        figure = Figure(figsize=(max(FULL, 0.16 * n + 1.9), (0.16 if n > 40 else 0.22) * n + 1.9), layout="constrained")
        ax = figure.subplots()
        rows, columns = np.nonzero(counts_CC)
        share = counts_CC[rows, columns] / counts_CC.sum(1)[rows] if len(rows) else np.empty(0)
        cells = [Rectangle((c - 0.5, r - 0.5), 1, 1) for r, c in zip(rows, columns, strict=True)]
        colours = [COLOURS[task] if r == c else WRONG for r, c in zip(rows, columns, strict=True)]
        ax.add_collection(PatchCollection(cells, facecolor=colours, alpha=0.15 + 0.6 * share, linewidth=0))
        for r, c in zip(rows, columns, strict=True):
            ax.text(float(c), float(r), f"{counts_CC[r, c]}", ha="center", va="center", fontsize=font_size)
        ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=GRID, linewidth=0.6, zorder=0)
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
        ax.set_xticks(range(n), [_short(name) for name in names], rotation=90 if n > 8 else 0, fontsize=font_size)
        ax.set_yticks(range(n), [_short(name) for name in names], fontsize=font_size)
        ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.tick_params(which="both", length=0)
        ax.grid(which="minor", linewidth=0.4)
        ax.spines[:].set_visible(False)
        return svg(figure)


def plot_confused_pairs(task: str, pairs: Sequence[tuple[str, str, int]]) -> str:
    """A bar for each pair of true and predicted label with its number of tracks, in the given order, in two columns."""
    rows = -(-len(pairs) // 2)
    with rc_context(STYLE):
        figure = Figure(figsize=(FULL, max(1.2, 0.55 + 0.2 * rows)), layout="constrained")
        for column, ax in enumerate(figure.subplots(1, 2)):
            shown = pairs[column * rows : (column + 1) * rows]
            ax.barh(range(len(shown)), [count for *_, count in shown], height=0.62, color=WRONG)
            names = [f"{_short(true, 18)} \N{RIGHTWARDS ARROW} {_short(predicted, 18)}" for true, predicted, _ in shown]
            ax.set_yticks(range(len(shown)), names, fontsize=8)
            ax.tick_params(axis="y", length=0)
            ax.set(ylim=(rows - 0.4, -0.6), xlim=(0, pairs[0][2]), xlabel="tracks")
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
            ax.grid(axis="x", linewidth=0.6)
        return svg(figure)


def plot_reliability(task: str, bins: Sequence[Mapping[str, float]], width: float = HALF) -> str:
    """Accuracy against confidence, a point for each bin of `reliability`, with a line over its range of confidence."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        ax.hlines(y, [b["low"] for b in bins], [b["high"] for b in bins], color=COLOURS[task], linewidth=1, alpha=0.6)
        ax.vlines(x, x, y, color=COLOURS[task], linewidth=1)
        ax.scatter(x, y, s=36, color=COLOURS[task], zorder=3, clip_on=False)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        return svg(figure)


def plot_precision(
    task: str,
    curves: Mapping[str, Sequence[float | None]],
    coverages: Sequence[float],
    at: Mapping[str, float | None],
    width: float = HALF,
) -> str:
    """Precision of names against coverage, of the chosen score (in colour) and of the probability.

    Args:
        curves: "chosen" and "probability" -> the precision at each of `coverages`.
        at: `precision` and `coverage` at the threshold, which get a dot.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        ax = figure.subplots()
        for name, colour in (("probability", MUTED), ("chosen", COLOURS[task])):
            points = [(x, y) for x, y in zip(coverages, curves[name], strict=True) if y is not None]
            if points:
                ax.plot(*zip(*points, strict=True), color=colour, linewidth=1.8)
        if at["precision"] is not None and at["coverage"] is not None:
            ax.scatter([at["coverage"]], [at["precision"]], s=42, color=COLOURS[task], zorder=3, clip_on=False)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="coverage of known artists' songs", ylabel="precision")
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        return svg(figure)


def plot_training(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss in nats by epoch, with a mark at the lowest validation loss.

    Each epoch has `epoch`, `train_loss` and `validation_loss`; losses that are missing or None are not drawn.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(FULL, 3.0), layout="constrained")
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
                side = "left" if 2 * best < len(x) else "right"  # into the axes, away from their edge
                at, text = (x[best], y[best]), f"best: epoch {x[best]}"
                ax.annotate(text, at, xytext=(0, -14), textcoords="offset points", ha=side, fontsize=8)
        ax.set(xlabel="epoch", ylabel="loss (nats)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.margins(x=0.02, y=0.15)
        ax.grid(axis="y", linewidth=0.6)
        return svg(figure)


def plot_score_by_duration(task: str, steps: Sequence[Mapping[str, Any]], width: float = HALF) -> str:
    """Scores on tracks against the seconds of each track that are used.

    Steps are rising numbers of `segments`, each with `auc_pr_macro` and `top_1` (or None) and their intervals in `ci`.
    """
    seconds = {step["segments"]: SEGMENT_S * step["segments"] for step in steps}
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        ax = figure.subplots()
        for key, colour, style in (("auc_pr_macro", COLOURS[task], "-"), ("top_1", INK, (0, (4, 2)))):
            scored = [step for step in steps if step[key] is not None]
            if not scored:
                continue
            x, y = [seconds[step["segments"]] for step in scored], [step[key] for step in scored]
            ax.plot(
                x, y, color=colour, linewidth=1.8, linestyle=style, marker="o", markersize=4, label=SCORE_NAMES[key]
            )
            if all(step["ci"].get(key) for step in scored):
                low, high = zip(*(step["ci"][key] for step in scored), strict=True)
                ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        ax.set_xscale("log")
        ticks = list(seconds.values())
        ticks = [s for s in ticks if s == ticks[-1] or 1.3 * s < ticks[-1]]  # else the last two labels overlap
        ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
        ax.minorticks_off()
        ax.set(xlabel="seconds of audio", ylim=(0, 1))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        ax.legend()
        return svg(figure)


def plot_class_curves(
    task: str,
    names: Sequence[str],
    curves: Sequence[Mapping[str, Sequence[float]]],
    scores: Sequence[tuple[float | None, float | None]],
) -> str:
    """A small panel for each class: precision over recall, and the ROC curve.

    Args:
        curves: for each class its entry of `ranking.curves`.
        scores: for each class average precision and area under the ROC curve; None: not defined.
    """
    columns = min(8, max(4, len(names)))
    width, height = 1.28, 1.62  # distance between panels of 1 x 1
    inches = FULL / (width * columns)
    lines: dict[str, list[np.ndarray]] = {GRID: [], MUTED: [], COLOURS[task]: []}
    with rc_context(STYLE):
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(FULL, inches * height * rows), layout="constrained")
        ax = figure.subplots()
        for i, (name, curve, (ap, roc)) in enumerate(zip(names, curves, scores, strict=True)):
            x, y = width * (i % columns), -height * (i // columns)
            corner = np.array([x, y])
            lines[GRID] += [corner + _BOX, corner + _BOX[::2]]
            lines[MUTED].append(corner + np.column_stack([curve["fpr"], curve["tpr"]]))
            lines[COLOURS[task]].append(corner + np.column_stack([curve["recall"], curve["precision"]]))
            areas = " / ".join(NO_VALUE if area is None else f"{100 * area:.0f}" for area in (ap, roc))
            ax.text(x, y + 1.05, areas, fontsize=6.5, color=MUTED, va="bottom")
            ax.text(x, y + 1.24, _short(name, 17), fontsize=7, va="bottom")
        for colour, polylines in lines.items():
            ax.add_collection(LineCollection(polylines, colors=colour, linewidths=0.6 if colour == GRID else 1.3))
        ax.set(xlim=(-0.05, width * columns), ylim=(-height * (rows - 1) - 0.05, 1.45), aspect="equal")
        ax.axis("off")
        return svg(figure)


_BOX = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]], float)


def mel_png(mel_TF: np.ndarray) -> str:
    """A log-mel spectrogram (T, F) as a data URI of a PNG, frames averaged to `MAX_PICTURE_WIDTH` pixels or fewer."""
    n = min(MAX_PICTURE_WIDTH, len(mel_TF))
    edges = np.linspace(0, len(mel_TF), n + 1).astype(int)[:-1]
    pooled_TF = np.add.reduceat(mel_TF.astype(np.float32), edges) / np.diff(np.append(edges, len(mel_TF)))[:, None]
    out = io.BytesIO()
    imsave(out, pooled_TF.T, cmap="magma", origin="lower", format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _short(name: str, max_length: int = 24) -> str:
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, with the variables of the page in place of the placeholder colours."""
    out = io.StringIO()
    with warnings.catch_warnings():
        # The font that matplotlib measures with lacks the glyph; the reader's browser has others.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = out.getvalue()
    element = element[element.index("<svg") :]
    for placeholder, variable in _VARIABLES.items():
        element = element.replace(placeholder, f"var(--{variable})")
    return element
