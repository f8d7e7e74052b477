"""Report: the result of an evaluation as an HTML page and as text for a terminal.

Both take what `metrics.json` holds. Scores are shares, 0 to 1, there and percent here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_core.evaluation import plots
from mtl_core.evaluation.baselines import CHANCE_KEYS
from mtl_core.evaluation.bootstrap import HEADLINES
from mtl_core.evaluation.html_page import header, page
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction
from mtl_core.evaluation.score_text import NO_VALUE, SCORE_NAMES, interval, percent

MAX_ROWS = 1000
MAX_PANELS = 120
N_PICTURED = 4  # best tracks, and as many worst ones


def format_report(result: Mapping[str, Any]) -> str:
    """A table of the headline scores for a terminal, with 95% intervals and chance."""
    lines = [
        f"{result['model_id']} on {result['on']}: {result['n_tracks']:,} tracks, {result['n_segments']:,} segments",
        f"{'':<24}{'tracks':<22}{'segments':<22}{'chance':>7}",
    ]
    for task, scores in result["tasks"].items():
        tracks = scores["tracks"]
        covered = f"{tracks['classes_covered']} of {tracks['classes']} classes"
        lines.append(f"{task}: {tracks['n']:,} labelled tracks, {covered}")
        for key in HEADLINES:
            cells = [f"{percent(level[key])} {interval(level['ci'].get(key))}" for level in _levels(scores)]
            chance = percent(tracks["chance"].get(CHANCE_KEYS[key]))
            lines.append(f"  {SCORE_NAMES[key]:<22}{cells[0]:<22}{cells[1]:<22}{chance:>7}")
    return "\n".join(lines)


def render_report(
    result: Mapping[str, Any],
    tracks: Sequence[TrackPrediction],
    history: Sequence[Mapping[str, Any]] = (),
    *,
    curves: Mapping[str, Mapping[int, Mapping[str, Any]]] | None = None,
    mels: Mapping[str, np.ndarray] | None = None,
) -> str:
    """The report as one HTML file.

    Args:
        result: what metrics.json holds.
        tracks: the evaluated tracks, in any order.
        history: the epochs of the training, for `plots.plot_training`.
        curves: task -> `ranking.curves` of the segments.
        mels: track_id -> log-mel frames (T, F) of the tracks of `best_and_worst`.
    """
    curves = curves or {}
    sections = [_head(result)]
    sections += [_task_section(task, scores, tracks, curves.get(task, {})) for task, scores in result["tasks"].items()]
    if any(epoch.get("train_loss") is not None for epoch in history):
        sections.append(f"<section><h2>Training</h2><figure>{plots.plot_training(history)}</figure></section>")
    sections += [_pictures(tracks, mels or {}), _track_list(tracks)]
    return page(f"{result['model_id']} on {result['on']}", "\n".join(sections))


def _levels(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [scores["tracks"], scores["segments"]]


def _head(result: Mapping[str, Any]) -> str:
    cards = []
    for task, scores in result["tasks"].items():
        tracks = scores["tracks"]
        for key in ("top_1", "auc_pr_macro"):
            cards.append(
                f'<div class="card {escape(task)}"><div class="name">{escape(task)}, {SCORE_NAMES[key]}</div>'
                f'<div class="value">{percent(tracks[key])}</div>{_scale(tracks, key)}'
                f'<div class="note">95% interval {interval(tracks["ci"].get(key)) or NO_VALUE}<br>'
                f"chance {percent(tracks['chance'].get(CHANCE_KEYS[key]))}</div></div>"
            )
    facts = {
        "model": result["model_id"],
        "evaluated on": result["on"],
        "tracks": f"{result['n_tracks']:,}",
        "segments": f"{result['n_segments']:,}",
        "mels": result["mels"],
        **result.get("facts", {}),
    }
    return f'{header("Evaluation", facts)}<div class="cards">{"".join(cards)}</div>'


def _scale(scores: Mapping[str, Any], key: str) -> str:
    """A line from 0 to 100% with the score, its interval and chance."""
    value, ci, chance = scores[key], scores["ci"].get(key), scores["chance"].get(CHANCE_KEYS[key])
    marks = "" if ci is None else f'<i class="interval" style="left:{ci[0]:.2%};width:{ci[1] - ci[0]:.2%}"></i>'
    marks += "" if chance is None else f'<i class="chance" style="left:{chance:.2%}"></i>'
    marks += "" if value is None else f'<i class="dot" style="left:{value:.2%}"></i>'
    return f'<div class="scale">{marks}</div>'


def _task_section(
    task: str, scores: Mapping[str, Any], tracks: Sequence[TrackPrediction], curves: Mapping[int, Mapping[str, Any]]
) -> str:
    rows = [track.by_task[task] for track in tracks if track.by_task[task].true_probability is not None]
    if not rows:
        text = "No evaluated track has a label that is a class of the model."
        return f"<section><h2>{escape(task).capitalize()}</h2><p>{text}</p></section>"
    per_class, n_classes = scores["tracks"]["per_class"], scores["tracks"]["classes"]
    covered = [c for c, ap in enumerate(per_class["auc_pr"]) if ap is not None]
    columns = [[per_class[key][c] for c in covered] for key in ("auc_pr", "auc_pr_chance", "support")]
    bars = plots.plot_average_precision(task, [scores["labels"][c] for c in covered], *columns)
    occurring = {row.true for row in rows} | {row.predicted for row in rows}
    names = [label for label in scores.get("order") or scores["labels"] if label in occurring]
    index = {name: i for i, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), int)
    for (true, predicted), count in Counter((row.true, row.predicted) for row in rows).items():
        counts_CC[index[str(true)], index[predicted]] = count
    others = f" The other {n_classes - len(covered)} have no evaluated track." if len(covered) < n_classes else ""
    return f"""<section class="{escape(task)}"><h2>{escape(task).capitalize()}</h2>
{_score_table(scores)}
<div class="pair">
<figure>{bars}<figcaption>Average precision of {len(covered)} of {n_classes} classes, with their numbers of
tracks.{others} The tick is the average precision of a random order.</figcaption></figure>
<div><figure>{plots.plot_reliability(task, scores["tracks"]["reliability"])}<figcaption>Accuracy of the predicted label
against its confidence. Above the dashed line, predictions are right more often than their confidence states.
Calibration error {percent(scores["tracks"]["ece"])}, negative log-likelihood {scores["tracks"]["nll"]:.2f} nats.
</figcaption></figure>
{_score_by_duration(task, scores.get("heard", ()))}</div>
</div>
<figure class="wide">{plots.plot_confusion(task, names, counts_CC)}<figcaption>Tracks by true and predicted label, for
the labels that occur. Red cells are wrong predictions.</figcaption></figure>
{_class_curves(task, scores, curves)}</section>"""


def _score_by_duration(task: str, steps: Sequence[Mapping[str, Any]]) -> str:
    if len(steps) < 2:
        return ""
    return f"""<figure>{plots.plot_score_by_duration(task, steps)}<figcaption>Scores on tracks if only so many seconds
of each track are used, in segments spread evenly over the track. Shorter tracks are used whole. The bands are 95%
bootstrap intervals over songs.</figcaption></figure>"""


def _class_curves(task: str, scores: Mapping[str, Any], curves: Mapping[int, Mapping[str, Any]]) -> str:
    """Precision-recall and ROC curves of each class; with more than `MAX_PANELS` classes, of the best and the worst."""
    if not curves:
        return ""
    per_class = scores["segments"]["per_class"]
    classes = sorted(curves, key=lambda c: (-per_class["auc_pr"][c], scores["labels"][c]))
    selection = ""
    if len(classes) > MAX_PANELS:
        half = MAX_PANELS // 2
        selection = f" Shown are the {half} best and the {half} worst of {len(classes)} classes."
        classes = [*classes[:half], *classes[-half:]]
    areas = [(per_class["auc_pr"][c], per_class["auc_roc"][c]) for c in classes]
    svg = plots.plot_class_curves(task, [scores["labels"][c] for c in classes], [curves[c] for c in classes], areas)
    return f"""<figure class="wide">{svg}<figcaption>Each class against the rest, on segments, best class
first.{selection} In colour: precision over recall. In grey: true over false positive rate. All axes go from 0 to 100%.
The numbers are average precision and the area under the ROC curve, in percent.</figcaption></figure>"""


def _score_table(scores: Mapping[str, Any]) -> str:
    baselines, tracks = scores.get("baselines", {}), scores["tracks"]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("tracks", "segments", *baselines, "chance"))
    rows = []
    for key, name in SCORE_NAMES.items():
        cells = [
            f"<td><b>{percent(level[key])}</b> <span>{interval(level['ci'].get(key))}</span></td>"
            for level in _levels(scores)
        ]
        cells += [f"<td>{percent(baseline[key])}</td>" for baseline in baselines.values()]
        cells += [f"<td>{percent(tracks['chance'].get(CHANCE_KEYS[key]))}</td>"]
        rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    return f"""<div class="scroll"><table class="scores"><thead><tr><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
<p class="note">{tracks["n"]:,} tracks and {scores["segments"]["n"]:,} segments are labelled, with
{tracks["classes_covered"]} of {tracks["classes"]} classes. In brackets: 95% bootstrap interval over songs. If every
song is right, the interval has no width, even with few songs. Baselines are scored on tracks. Chance is a uniform
guess, or a random order of the tracks. Always predicting the most frequent label is right on
{percent(tracks["chance"]["majority"])} of the tracks.</p>"""


def best_and_worst(tracks: Sequence[TrackPrediction]) -> tuple[list[TrackPrediction], list[TrackPrediction]]:
    """The `N_PICTURED` best labelled tracks, best first, and the as many worst of the others, worst first."""
    ordered = [track for track in _worst_first(tracks) if _mean_loss(track.by_task.values()) >= 0]
    best = ordered[::-1][:N_PICTURED]
    return best, ordered[: min(N_PICTURED, len(ordered) - len(best))]


def _pictures(tracks: Sequence[TrackPrediction], mels: Mapping[str, np.ndarray]) -> str:
    if not mels:
        return ""
    columns = []
    for name, selected in zip(("Best", "Worst"), best_and_worst(tracks), strict=True):
        figures = "".join(_picture(track, mels[track.track_id]) for track in selected if track.track_id in mels)
        columns.append(f"<div><h3>{name}</h3>{figures}</div>")
    return f"""<section><h2>Best and worst tracks</h2><p class="note">By the probability of the true labels. The picture
is the log-mel spectrogram of all segments, with time from left to right and 0 to 8 kHz from bottom to top.</p>
<div class="pair">{"".join(columns)}</div></section>"""


def _picture(track: TrackPrediction, mel_TF: np.ndarray) -> str:
    lines = "".join(
        f"<li>{escape(task)}: {escape(str(row.true))}"
        + ("" if row.true_probability is None else f", probability {row.true_probability:.0%}")
        + (f"; predicted {escape(row.predicted)}&nbsp;✗" if row.predicted != row.true else "")
        + "</li>"
        for task, row in track.by_task.items()
    )
    name = escape(track.track_id)
    return f"""<figure class="mel"><img alt="log-mel spectrogram of {name}" src="{plots.mel_png(mel_TF)}">
<figcaption><b>{name}</b><ul>{lines}</ul></figcaption></figure>"""


def _track_list(tracks: Sequence[TrackPrediction]) -> str:
    tasks = list(tracks[0].by_task) if tracks else []
    head = "".join(f"<th>{escape(task)}</th><th>predicted</th><th>confidence</th>" for task in tasks)
    rows = "".join(
        f"<tr><td>{escape(track.track_id)}</td><td>{track.n_segments}</td>"
        + "".join(_task_cells(track.by_task[task]) for task in tasks)
        + "</tr>"
        for track in _worst_first(tracks)[:MAX_ROWS]
    )
    selection = f" Shown are the worst {MAX_ROWS:,} of {len(tracks):,}." if len(tracks) > MAX_ROWS else ""
    return f"""<section><h2>Tracks, worst first</h2><p class="note">By the probability of the true labels. ✗ marks a
wrong prediction, ? a confidence below the threshold, with which the track would be tagged unknown.{selection}</p>
<div class="scroll"><table class="tracks"><thead><tr><th>track</th><th>segments</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _task_cells(row: TaskPrediction) -> str:
    wrong = row.true is not None and row.predicted != row.true
    true = "<i>no label</i>" if row.true is None else escape(row.true)
    true += " <i>(not a class)</i>" if row.true is not None and row.true_probability is None else ""
    marks = ("&nbsp;✗" if wrong else "") + ("&nbsp;?" if row.unknown else "")
    return (
        f"<td>{true}</td><td{' class=wrong' if wrong else ''}>{escape(row.predicted)}{marks}</td>"
        f'<td class="confidence">{row.confidence:.0%}<i style="width:{row.confidence:.1%}"></i></td>'
    )


def _worst_first(tracks: Sequence[TrackPrediction]) -> list[TrackPrediction]:
    return sorted(tracks, key=lambda track: (-_mean_loss(track.by_task.values()), track.track_id))


def _mean_loss(rows: Iterable[TaskPrediction]) -> float:
    """Mean negative log-probability of the true labels; -1 if there are none, so that these tracks come last."""
    losses = [-np.log(max(row.true_probability, 1e-12)) for row in rows if row.true_probability is not None]
    return float(np.mean(losses)) if losses else -1.0
