"""Task section: the part of the report about one task: its scores and its plots.

Each plot has a title that says what it shows. Plots of half the width stand in pairs; one without a partner gets the
full width. With many classes, the best and the worst are shown, and the pairs of labels that are confused most. It
takes what `metrics.json` holds of the task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_core.evaluation.baselines import CHANCE_KEYS
from mtl_core.evaluation.out_of_fold import COVERAGES
from mtl_core.evaluation.pages import plots
from mtl_core.evaluation.pages.plots import FULL, HALF
from mtl_core.evaluation.pages.score_text import SCORE_NAMES, interval, percent
from mtl_core.evaluation.predictions import Predictions, TaskPrediction
from mtl_core.evaluation.ranking import curve

MAX_CLASSES = 80  # of a plot: half of them the best, half the worst
ONE_COLUMN = 20  # bars
MAX_PAIRS = 40  # of labels that are confused

Curves = Mapping[int, Mapping[str, Sequence[float]]]  # class -> `ranking.curve`


def task_section(task: str, scores: Mapping[str, Any], rows: Sequence[TaskPrediction], curves: Curves) -> str:
    """The section as HTML.

    Args:
        task: artist or language.
        scores: the entry of the task in metrics.json.
        rows: the predictions for the tracks.
        curves: of the classes to show, on segments.
    """
    rows = [row for row in rows if row.true_probability is not None]
    heading = f"<h2>{escape(task).capitalize()}</h2>"
    if not rows:
        return f"<section>{heading}<p>No evaluated track has a label that is a class of the model.</p></section>"
    halves: list[_Half | str] = [*_average_precision(task, scores), _reliability(task, scores)]
    halves += _score_by_duration(task, scores)
    halves += _unknown(task, scores)
    figures = [*_pack(halves), _confusion(task, scores, rows), *_class_curves(task, scores, curves)]
    notes = [f"{part.capitalize()}: {text}." for part, text in sampled_parts(scores).items()]
    if scores.get("sampled"):
        notes.append("With fewer tracks, average precision is higher.")
    note = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
    return f"""<section class="{escape(task)}">{heading}
{_score_table(scores)}{note}
{"".join(figures)}</section>"""


def sampled_parts(scores: Mapping[str, Any]) -> dict[str, str]:
    """What is computed from a sample or to first order -> how, of all parts of a task's scores."""
    parts = {f"{level}, {name}": text for level, of in levels(scores).items() for name, text in _sampled(of)}
    return parts | {"score by duration" if name == "heard" else name: text for name, text in _sampled(scores)}


def levels(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """`tracks`, and `segments` where they were scored -> their scores."""
    return {level: scores[level] for level in ("tracks", "segments") if level in scores}


def _sampled(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("intervals" if name == "ci" else name, text) for name, text in scores.get("sampled", {}).items()]


def shown_classes(values: Mapping[int, float], labels: Sequence[str]) -> tuple[list[int], str]:
    """The classes to plot, best first, and a sentence about the selection: all, or the best and the worst.

    Args:
        values: class -> its score.
        labels: of all classes; they decide where scores are equal.
    """
    classes = sorted(values, key=lambda c: (-values[c], labels[c]))
    if len(classes) <= MAX_CLASSES:
        return classes, ""
    half = MAX_CLASSES // 2
    sentence = f" Shown are the {half} best and the {half} worst of {len(classes):,} classes."
    return [*classes[:half], *classes[-half:]], sentence


def class_curves(predictions: Predictions, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Curves]:
    """task -> the curves of the classes to show, on segments, from the predictions and the tasks of metrics.json."""
    curves: dict[str, Curves] = {}
    for task, task_scores in scores.items():
        per_class = task_scores["segments"]["per_class"]
        values = {c: per_class["auc_pr"][c] for c, area in enumerate(per_class["auc_roc"]) if area is not None}
        classes = np.array(shown_classes(values, task_scores["labels"])[0], np.int64)
        segments, targets_N = predictions.segment_scores(task)
        known = np.flatnonzero(targets_N >= 0)
        value_CN = segments.take(known).of_classes(classes) if len(classes) else ()
        curves[task] = {
            int(c): curve(value_N, targets_N[known] == c) for c, value_N in zip(classes, value_CN, strict=True)
        }
    return curves


class _Half:
    """A plot for half of the page's width, or for all of it."""

    def __init__(self, title: str, caption: str, draw: Any) -> None:
        self._title, self._caption, self._draw = title, caption, draw

    def html(self, width: float) -> str:
        return figure(self._title, self._draw(width), self._caption)


def figure(title: str, svg: str, caption: str, kind: str = "") -> str:
    """A figure with its title above and its caption below, as HTML; `title` and `caption` are plain text."""
    return f'<figure class="{kind}"><h3>{escape(title)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def _pack(halves: Sequence[_Half | str]) -> list[str]:
    """Rows of two halves each; text is a row of its own, and so is the last half if their number is odd."""
    rows = [half for half in halves if isinstance(half, str)]
    pairs = [half for half in halves if not isinstance(half, str)]
    for first in range(0, len(pairs), 2):
        row = pairs[first : first + 2]
        width = HALF if len(row) == 2 else FULL
        rows.append(f'<div class="row n{len(row)}">{"".join(half.html(width) for half in row)}</div>')
    return rows


def _average_precision(task: str, scores: Mapping[str, Any]) -> list[_Half | str]:
    tracks, labels = scores["tracks"], scores["labels"]
    per_class = tracks["per_class"]
    values = {c: ap for c, ap in enumerate(per_class["auc_pr"]) if ap is not None}
    classes, selection = shown_classes(values, labels)
    values_C, chance_C, support_C = (
        [per_class[key][c] for c in classes] for key in ("auc_pr", "auc_pr_chance", "support")
    )
    median = float(np.median(list(values.values())))
    title = f"{task.capitalize()}: half of the classes have an average precision of {percent(median)} or more"
    missing = tracks["classes"] - len(values)
    caption = (
        f"Average precision on tracks of {len(values):,} of {tracks['classes']:,} classes, with their numbers of "
        f"tracks.{selection}{f' The other {missing:,} have no evaluated track.' if missing else ''} The tick is the "
        "average precision of a random order."
    )
    names = [labels[c] for c in classes]

    def draw(width: float) -> str:
        return plots.plot_average_precision(task, names, values_C, chance_C, support_C, width)

    return [_Half(title, caption, draw) if len(classes) <= ONE_COLUMN else figure(title, draw(FULL), caption)]


def _reliability(task: str, scores: Mapping[str, Any]) -> _Half:
    tracks = scores["tracks"]
    bins = tracks["reliability"]
    total = sum(b["count"] for b in bins)
    confidence = sum(b["count"] * b["confidence"] for b in bins) / total
    title = f"{task.capitalize()}: mean confidence is {percent(confidence)}, accuracy {percent(tracks['top_1'])}"
    caption = (
        f"Accuracy of the predicted label against its confidence, in {len(bins)} bins of about equally many of "
        f"{total:,} tracks. Above the dashed line, predictions are right more often than their confidence states. "
        f"Calibration error, debiased: {percent(tracks['ece'])} {interval(tracks['ci'].get('ece'))}. Negative "
        f"log-likelihood: {tracks['nll']:.2f} nats."
    )
    return _Half(title, caption, lambda width: plots.plot_reliability(task, bins, width))


def _score_by_duration(task: str, scores: Mapping[str, Any]) -> list[_Half]:
    steps = scores.get("heard", ())
    if len(steps) < 2:
        return []
    first, last = (
        f"{percent(step['top_1'])} with {plots.SEGMENT_S * step['segments']:g} s" for step in (steps[0], steps[-1])
    )
    caption = (
        "Scores on tracks if only so many seconds of each track are used, in segments spread evenly over the track. "
        "Shorter tracks are used whole. The bands are 95% bootstrap intervals over songs."
    )
    if "heard" in scores.get("sampled", {}):
        caption += f" Of {scores['sampled']['heard']}: with fewer tracks, average precision is higher."
    title = f"{task.capitalize()}: top-1 is {first} of audio, {last}"
    return [_Half(title, caption, lambda width: plots.plot_score_by_duration(task, steps, width))]


def _unknown(task: str, scores: Mapping[str, Any]) -> list[_Half | str]:
    """Of a cross-fitted model: precision against coverage, by the score that was chosen and by the probability."""
    if "unknown" not in scores:
        return []
    unknown = scores["unknown"]
    at_half = next(row for row in unknown["named"] if row["unknown_share"] == 0.5)
    title = (
        f"{task.capitalize()}: {percent(at_half['coverage'])} of the songs of known artists get a name, and "
        f"{percent(at_half['precision'])} of the names are right"
    )
    caption = (
        f"Precision of the names against the share of known artists' songs that get one, with half of the tracks of "
        f"unknown artists. The score ({unknown['score']}) tells songs of known and of unknown artists apart with an "
        f"AUROC of {percent(unknown['auroc'])} {interval(unknown['ci'])}, the highest probability (grey) with "
        f"{percent(unknown['auroc_of_probability'])}. The dot is the threshold."
    )
    return [
        _Half(title, caption, lambda width: plots.plot_precision(task, unknown["curve"], COVERAGES, at_half, width))
    ]


def _confusion(task: str, scores: Mapping[str, Any], rows: Sequence[TaskPrediction]) -> str:
    counts = Counter((str(row.true), row.predicted) for row in rows)
    pairs = sorted(
        ((true, predicted, n) for (true, predicted), n in counts.items() if true != predicted),
        key=lambda pair: (-pair[2], pair[0], pair[1]),
    )
    n_wrong = sum(n for *_, n in pairs)
    title = f"{task.capitalize()}: {n_wrong:,} of {len(rows):,} tracks are predicted as another label"
    if pairs:
        title += f", most often {pairs[0][0]} as {pairs[0][1]} ({pairs[0][2]:,})"
    occurring = {name for pair in counts for name in pair}
    if len(occurring) > MAX_CLASSES:
        shown = pairs[:MAX_PAIRS]
        caption = (
            f"True and predicted label of wrong predictions: the {len(shown)} most frequent of {len(pairs):,} pairs."
        )
        return figure(title, plots.plot_confused_pairs(task, shown) if shown else "", caption)
    names = [label for label in scores.get("order") or scores["labels"] if label in occurring]
    index = {name: i for i, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), int)
    for (true, predicted), count in counts.items():
        counts_CC[index[true], index[predicted]] = count
    caption = "Tracks by true and predicted label, for the labels that occur. Red cells are wrong predictions."
    return figure(title, plots.plot_confusion(task, names, counts_CC), caption, "wide")


def _class_curves(task: str, scores: Mapping[str, Any], curves: Curves) -> list[str]:
    """Precision-recall and ROC curves of each class, best first."""
    if not curves:
        return []
    per_class, labels = scores["segments"]["per_class"], scores["labels"]
    classes = sorted(curves, key=lambda c: (-per_class["auc_pr"][c], labels[c]))
    n_defined = sum(area is not None for area in per_class["auc_roc"])
    selection = (
        f" Shown are the {len(classes) // 2} best and the {len(classes) - len(classes) // 2} worst of {n_defined:,}."
        if n_defined > len(classes)
        else ""
    )
    areas = [(per_class["auc_pr"][c], per_class["auc_roc"][c]) for c in classes]
    svg = plots.plot_class_curves(task, [labels[c] for c in classes], [curves[c] for c in classes], areas)
    caption = (
        f"Each class against the rest, on segments, best class first.{selection} In colour: precision over recall. In "
        "grey: true over false positive rate. All axes go from 0 to 100%. The numbers are average precision and the "
        "area under the ROC curve, in percent."
    )
    best, worst = percent(areas[0][0]), percent(areas[-1][0])
    title = f"{task.capitalize()}: average precision on segments goes from {best} to {worst}"
    return [figure(title, svg, caption)]


def _score_table(scores: Mapping[str, Any]) -> str:
    baselines, tracks = scores.get("baselines", {}), scores["tracks"]
    head = "".join(f"<th>{escape(name)}</th>" for name in (*levels(scores), *baselines, "chance"))
    rows = []
    for key, name in SCORE_NAMES.items():
        cells = [
            f"<td><b>{percent(level[key])}</b> <span>{interval(level['ci'].get(key))}</span></td>"
            for level in levels(scores).values()
        ]
        cells += [f"<td>{percent(baseline[key])}</td>" for baseline in baselines.values()]
        cells += [f"<td>{percent(tracks['chance'].get(CHANCE_KEYS[key]))}</td>"]
        rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    return f"""<div class="scroll"><table class="scores"><thead><tr><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
<p class="note">{" and ".join(f"{of['n']:,} {level}" for level, of in levels(scores).items())} are labelled, with
{tracks["classes_covered"]:,} of {tracks["classes"]:,} classes. In brackets: 95% bootstrap interval over songs.
If every song is right, the interval has no width, even with few songs. Baselines are scored on tracks. Chance is a
uniform guess, or a random order of the tracks. Always predicting the most frequent label is right on
{percent(tracks["chance"]["majority"])} of the tracks.</p>"""
