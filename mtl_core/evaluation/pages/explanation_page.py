"""Explanation page: why a track has its tags, as one HTML file without links to others."""

from html import escape

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from mtl_core.evaluation.pages.html_page import header, page
from mtl_core.evaluation.pages.plots import COLOURS, FULL, GRID, MUTED, SEGMENT_S, STYLE, mel_png, svg
from mtl_core.inference.explanation import Explanation, SegmentVote, clock

_STYLES = ("-", "--", ":")  # of the labels, most probable first


def explanation_page(explanation: Explanation) -> str:
    """The page: tags with their reasons, the segments over time, and the rounds."""
    facts = {
        "length": clock(explanation.duration_s),
        "segments": f"{len(explanation.segments)} of {explanation.n_segments} read",
        "with sound": str(sum(segment.has_sound for segment in explanation.segments)),
        "stopped": explanation.stopped,
    }
    tags = "".join(
        f"<p class='{task}'><b>{task}: {escape(_label(explanation, task))}</b><br>"
        f"<span class='note'>{escape(reason)}</span></p>"
        for task, reason in explanation.reasons.items()
    )
    curves = "".join(
        f"<section class='{task}'><h2>What each segment says: {task}</h2><figure>{plot_segments(explanation, task)}"
        "<figcaption>Probability of the track's most probable labels, of each segment alone. Grey: no sound."
        "</figcaption></figure></section>"
        for task in explanation.reasons
        if task in explanation.tags
    )
    mels = "".join(
        f"<figure class='mel'><img alt='' src='{mel_png(segment.mel_TF)}'>"
        f"<figcaption>{clock(segment.start_s)}{'' if segment.has_sound else ', no sound'}</figcaption></figure>"
        for segment in explanation.segments
    )
    grid = "display:grid;gap:0 1rem;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))"
    mel_section = f"<section><h2>The segments that were read</h2><div style='{grid}'>{mels}</div></section>"
    body = f"{header(explanation.path, facts)}<section><h2>Tags</h2>{tags}</section>{curves}{mel_section}"
    return page(explanation.path, body + _rounds(explanation))


def plot_segments(explanation: Explanation, task: str) -> str:
    """The probabilities of the track's three most probable labels, segment by segment, as an `<svg>` element."""
    labels = [label for label, _ in explanation.tags[task].top[:3]]
    with rc_context(STYLE):
        figure = Figure(figsize=(FULL, 2.6), layout="constrained")
        ax = figure.subplots()
        centre_S = np.array([segment.start_s + SEGMENT_S / 2 for segment in explanation.segments])
        for segment, centre in zip(explanation.segments, centre_S, strict=True):
            if not segment.has_sound:
                ax.axvspan(centre - SEGMENT_S / 2, centre + SEGMENT_S / 2, color=GRID, linewidth=0)
        for number, label in enumerate(labels):
            p_S = [_probability(segment, task, label) for segment in explanation.segments]
            colour = COLOURS[task] if number == 0 else MUTED
            ax.plot(centre_S, p_S, color=colour, linestyle=_STYLES[number], marker="o", markersize=4, label=label)
        ax.set(xlim=(0, explanation.duration_s), ylim=(-0.03, 1.03), xlabel="time in the recording")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.grid(linewidth=0.6)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return svg(figure)


def _probability(segment: SegmentVote, task: str, label: str) -> float:
    """Of a label in a segment: nan without sound, 0 where it is not in the segment's top list."""
    return dict(segment.top[task]).get(label, 0.0) if segment.has_sound else float("nan")


def _rounds(explanation: Explanation) -> str:
    rows = []
    for n_segments, tags in explanation.rounds:
        cells = ""
        for tag in (tags.get(task) for task in explanation.reasons):
            values = ["null", "", ""]
            if tag is not None:
                values = [tag.label or "null", f"{tag.top[0][0]} {tag.confidence:.2f}", f"{tag.score:.4g}"]
            cells += "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f"<tr><th>{n_segments}</th>{cells}</tr>")
    heads = "".join(f"<th>{task}</th><th>most probable</th><th>score</th>" for task in explanation.reasons)
    table = f"<table><thead><tr><th>segments</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<section><h2>Round by round</h2><div class='scroll'>{table}</div></section>"


def _label(explanation: Explanation, task: str) -> str:
    tag = explanation.tags.get(task)
    return "null" if tag is None or tag.label is None else f"{tag.label}, {tag.confidence:.2f}"
