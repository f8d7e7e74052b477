"""Report: what an evaluation found, as one HTML page that needs nothing else, for people who look rather than read.

Contents: `html` (the page), `text` (the same figures, short, for a terminal). Both take what `metrics.json` holds;
scores are shares from 0 to 1 there and percent here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_core.evaluation import plots
from mtl_core.evaluation.html_page import page
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction

MAX_ROWS = 1000
MAX_PANELS = 120
N_PICTURED = 4  # best tracks, and as many worst
_NONE = "\N{EN DASH}"

#: name in metrics.json -> (name for people, key of its chance)
_SCORES = {
    "auc_pr_macro": ("AUC-PR, macro", "auc_pr_macro"),
    "auc_roc_macro": ("AUC-ROC, macro", "auc_roc"),
    "auc_pr_micro": ("AUC-PR, micro", "auc_pr_micro"),
    "auc_roc_micro": ("AUC-ROC, micro", "auc_roc"),
    "top_1": ("top-1 accuracy", "top_1"),
    "top_5": ("top-5 accuracy", "top_5"),
}


def format_report(result: Mapping[str, Any]) -> str:
    """A table of the headline scores for a terminal, beside chance, with 95% intervals."""
    lines = [
        f"{result['model_id']} on {result['on']}: {result['n_tracks']:,} tracks, {result['n_segments']:,} segments",
        f"{'':<24}{'tracks':<22}{'segments':<22}{'chance':>7}",
    ]
    for task, found in result["tasks"].items():
        tracks, segments = found["tracks"], found["segments"]
        covered = f"{tracks['classes_covered']} of {tracks['classes']} classes"
        lines.append(f"{task}: {tracks['n']:,} labelled tracks, {covered}")
        for key in ("top_1", "top_5", "auc_pr_macro", "auc_roc_macro"):
            name, of_chance = _SCORES[key]
            cells = [f"{_percent(level[key])} {_interval(level['ci'].get(key))}" for level in (tracks, segments)]
            lines.append(f"  {name:<22}{cells[0]:<22}{cells[1]:<22}{_percent(tracks['chance'].get(of_chance)):>7}")
    return "\n".join(lines)


def render_report(
    result: Mapping[str, Any],
    tracks: Sequence[TrackPrediction],
    history: Sequence[Mapping[str, Any]] = (),
    *,
    curves: Mapping[str, Mapping[int, Mapping[str, Any]]] | None = None,
    mels: Mapping[str, np.ndarray] | None = None,
) -> str:
    """The page.

    Args:
        result: what metrics.json holds.
        tracks: the evaluated ones, in any order.
        history: the training's epochs, for `plots.training_curves`.
        curves: task -> `areas.curves` of the segments.
        mels: track_id -> the log-mel frames (T, F) of a track to be pictured.
    """
    curves = curves or {}
    parts = [_head(result), *(_task(t, found, tracks, curves.get(t, {})) for t, found in result["tasks"].items())]
    if any(epoch.get("train_loss") is not None for epoch in history):
        parts.append(f"<section><h2>Training</h2><figure>{plots.training_curves(history)}</figure></section>")
    parts += [_pictured(tracks, mels or {}), _tracks(tracks)]
    return page(f"{result['model_id']} on {result['on']}", "\n".join(parts))


def _head(result: Mapping[str, Any]) -> str:
    cards = []
    for task, found in result["tasks"].items():
        for key in ("top_1", "auc_pr_macro"):
            tracks = found["tracks"]
            name, of_chance = _SCORES[key]
            cards.append(
                f'<div class="card {escape(task)}"><div class="what">{escape(task)}, {name}</div>'
                f'<div class="value">{_percent(tracks[key])}</div>{_scale(tracks, key, of_chance)}'
                f'<div class="note">95% interval {_interval(tracks["ci"].get(key)) or _NONE}<br>'
                f"chance {_percent(tracks['chance'].get(of_chance))}</div></div>"
            )
    facts = [("model", result["model_id"]), ("part", result["on"]), ("tracks", f"{result['n_tracks']:,}")]
    facts += [("segments", f"{result['n_segments']:,}"), ("mels", result["mels"]), *result.get("facts", {}).items()]
    listed = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts)
    return f'<header><h1>Evaluation</h1><dl>{listed}</dl></header><div class="cards">{"".join(cards)}</div>'


def _scale(scores: Mapping[str, Any], key: str, of_chance: str | None) -> str:
    """0 to 100% as a line: the interval a band on it, the value and chance marks."""
    value, ci, none = scores[key], scores["ci"].get(key), scores["chance"].get(of_chance)
    marks = "" if ci is None else f'<i class="band" style="left:{ci[0]:.2%};width:{ci[1] - ci[0]:.2%}"></i>'
    marks += "" if none is None else f'<i class="chance" style="left:{none:.2%}"></i>'
    marks += "" if value is None else f'<i class="dot" style="left:{value:.2%}"></i>'
    return f'<div class="scale">{marks}</div>'


def _task(
    task: str, found: Mapping[str, Any], tracks: Sequence[TrackPrediction], curves: Mapping[int, Mapping[str, Any]]
) -> str:
    of_tracks = found["tracks"]
    said = [track.by_task[task] for track in tracks if track.by_task[task].true_probability is not None]
    if not said:
        return (
            f"<section><h2>{escape(task)}</h2><p>No track of this part has a label that the model knows.</p></section>"
        )
    per_class = of_tracks["per_class"]
    shown = [c for c, ap in enumerate(per_class["auc_pr"]) if ap is not None]
    columns = [[per_class[key][c] for c in shown] for key in ("auc_pr", "auc_pr_chance", "support")]
    bars = plots.average_precisions(task, [found["labels"][c] for c in shown], *columns)
    names = _in_order(found["labels"], {s.true for s in said} | {s.predicted for s in said}, found.get("order"))
    index = {name: i for i, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), int)
    for (true, first), count in Counter((s.true, s.predicted) for s in said).items():
        counts_CC[index[str(true)], index[first]] = count
    missing = of_tracks["classes"] - len(shown)
    absent = f" The other {missing} have no track in this part." if missing else ""
    ece, nll = _percent(of_tracks["ece"]), f"{of_tracks['nll']:.2f}"
    return f"""<section class="{escape(task)}"><h2>{escape(task).capitalize()}</h2>
{_table(found)}
<div class="pair">
<figure>{bars}<figcaption>Average precision of {len(shown)} of {of_tracks["classes"]} classes, with their number of
tracks.{absent} The tick is what a random order would score.</figcaption></figure>
<div><figure>{plots.plot_reliability(task, of_tracks["reliability"])}<figcaption>Confidence of the first label against how
often it is right: above the dashed line more often than it says. Calibration error {ece}, negative log-likelihood
{nll} nats.</figcaption></figure>
{_heard(task, found.get("heard", ()))}</div>
</div>
<figure class="wide">{plots.confusion(task, names, counts_CC)}<figcaption>Tracks by true and said label, over the labels
that occur; red is wrong.</figcaption></figure>
{_curves(task, found, curves)}</section>"""


def _heard(task: str, heard: Sequence[Mapping[str, Any]]) -> str:
    """How the scores grow with the audio."""
    if len(heard) < 2:
        return ""
    return f"""<figure>{plots.audio_heard(task, heard)}<figcaption>Score on tracks against how much of each is heard,
its segments spread evenly over the track; a shorter track is heard whole. The bands are 95% bootstrap intervals over
songs.</figcaption></figure>"""


def _curves(task: str, found: Mapping[str, Any], curves: Mapping[int, Mapping[str, Any]]) -> str:
    """Precision-recall and ROC of each class; of very many classes the best and the worst."""
    if not curves:
        return ""
    per_class = found["segments"]["per_class"]
    best_first = sorted(curves, key=lambda c: (-per_class["auc_pr"][c], found["labels"][c]))
    half = MAX_PANELS // 2
    shown = best_first if len(best_first) <= MAX_PANELS else [*best_first[:half], *best_first[-half:]]
    of = "" if len(shown) == len(best_first) else f", the {half} best and the {half} worst of {len(best_first)}"
    scores = [(per_class["auc_pr"][c], per_class["auc_roc"][c]) for c in shown]
    svg = plots.class_curves(task, [found["labels"][c] for c in shown], [curves[c] for c in shown], scores)
    return f"""<figure class="wide">{svg}<figcaption>Each class against the rest, on segments, best first{of}: precision
over recall in colour, true over false positive rate in grey; both axes from 0 to 100%. The numbers are average
precision and the area under the ROC curve, percent.</figcaption></figure>"""


def _in_order(labels: Sequence[str], occurring: set[str | None], order: Sequence[str] | None) -> list[str]:
    return [label for label in order or labels if label in occurring]


def _table(found: Mapping[str, Any]) -> str:
    baselines = found.get("baselines", {})
    head = "".join(f"<th>{escape(name)}</th>" for name in ("tracks", "segments", *baselines, "chance"))
    rows = []
    for key, (name, of_chance) in _SCORES.items():
        cells = [
            f"<td><b>{_percent(level[key])}</b> <span>{_interval(level['ci'].get(key))}</span></td>"
            for level in (found["tracks"], found["segments"])
        ]
        cells += [f"<td>{_percent(baseline[key])}</td>" for baseline in baselines.values()]
        rows.append(
            f"<tr><th>{name}</th>{''.join(cells)}<td>{_percent(found['tracks']['chance'].get(of_chance))}</td></tr>"
        )
    counts = [f"{found[level]['n']:,} {level}" for level in ("tracks", "segments")]
    covered = f"{found['tracks']['classes_covered']} of {found['tracks']['classes']}"
    majority = _percent(found["tracks"]["chance"]["majority"])
    return f"""<div class="scroll"><table class="scores"><thead><tr><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
<p class="note">{" and ".join(counts)} are labelled, with {covered} classes. In brackets the 95% bootstrap interval over
songs. Chance is a uniform guess or a random order of the tracks; always naming the most frequent label is right on
{majority}. Baselines are on tracks. Where every song is right the interval has no width, however few they are.</p>"""


def best_and_worst(
    tracks: Sequence[TrackPrediction], n: int = N_PICTURED
) -> tuple[list[TrackPrediction], list[TrackPrediction]]:
    """The best n labelled tracks, best first, and the worst n of the others, worst first."""
    ordered = [track for track in _worst_first(tracks) if _badness(track.by_task.values()) >= 0]
    best = ordered[::-1][:n]
    return best, ordered[: min(n, len(ordered) - len(best))]


def _pictured(tracks: Sequence[TrackPrediction], mels: Mapping[str, np.ndarray]) -> str:
    """The best and the worst tracks with their mels."""
    if not mels:
        return ""
    columns = []
    for name, picked in zip(("Best", "Worst"), best_and_worst(tracks), strict=True):
        cards = "".join(_picture(track, mels[track.track_id]) for track in picked if track.track_id in mels)
        columns.append(f"<div><h3>{name}</h3>{cards}</div>")
    return f"""<section><h2>Best and worst tracks</h2><p class="note">By the probability given to the true labels. The
picture is the log-mel spectrogram of all segments, time from left to right, 0 to 8 kHz from bottom to top.</p>
<div class="pair">{"".join(columns)}</div></section>"""


def _picture(track: TrackPrediction, mel_TF: np.ndarray) -> str:
    lines = "".join(
        f"<li>{escape(task)}: {escape(str(said.true))}"
        + (f", said {escape(said.predicted)}&nbsp;✗" if said.predicted != said.true else "")
        + ("" if said.true_probability is None else f", given {said.true_probability:.0%}")
        + "</li>"
        for task, said in track.by_task.items()
    )
    name = escape(track.track_id)
    return f"""<figure class="mel"><img alt="log-mel spectrogram of {name}" src="{plots.mel_picture(mel_TF)}">
<figcaption><b>{name}</b><ul>{lines}</ul></figcaption></figure>"""


def _worst_first(tracks: Sequence[TrackPrediction]) -> list[TrackPrediction]:
    return sorted(tracks, key=lambda track: (-_badness(track.by_task.values()), track.track_id))


def _tracks(tracks: Sequence[TrackPrediction]) -> str:
    tasks = list(tracks[0].by_task) if tracks else []
    worst_first = _worst_first(tracks)
    head = "".join(f"<th>{escape(task)}</th><th>said</th><th>confidence</th>" for task in tasks)
    rows = "".join(
        f"<tr><td>{escape(track.track_id)}</td><td>{track.n_segments}</td>"
        + "".join(_said(track.by_task[task]) for task in tasks)
        + "</tr>"
        for track in worst_first[:MAX_ROWS]
    )
    left_out = f" The worst {MAX_ROWS:,} of {len(tracks):,}." if len(tracks) > MAX_ROWS else ""
    return f"""<section><h2>Tracks, worst first</h2><p class="note">By the probability given to the true labels; ✗ is
wrong, ? is below the threshold and would be tagged unknown.{left_out}</p>
<div class="scroll"><table class="tracks"><thead><tr><th>track</th><th>segments</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _badness(said: Iterable[TaskPrediction]) -> float:
    """Mean negative log-probability of the true labels; -1 where there are none, so that such tracks come last."""
    losses = [-np.log(max(s.true_probability, 1e-12)) for s in said if s.true_probability is not None]
    return float(np.mean(losses)) if losses else -1.0


def _said(said: TaskPrediction) -> str:
    wrong = said.true is not None and said.predicted != said.true
    true = "<i>no label</i>" if said.true is None else escape(said.true)
    true += " <i>(no class)</i>" if said.true is not None and said.true_probability is None else ""
    marks = ("&nbsp;✗" if wrong else "") + ("&nbsp;?" if said.unknown else "")
    return (
        f"<td>{true}</td><td{' class=wrong' if wrong else ''}>{escape(said.predicted)}{marks}</td>"
        f'<td class="confidence">{said.confidence:.0%}<i style="width:{said.confidence:.1%}"></i></td>'
    )


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}%"


def _interval(ci: Sequence[float] | None) -> str:
    return "" if ci is None else f"[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"
