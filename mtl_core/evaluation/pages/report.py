"""Report: the result of an evaluation as an HTML page and as text for a terminal.

Both take what `metrics.json` holds. Scores are shares, 0 to 1, there and percent here.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_core.evaluation.baselines import CHANCE_KEYS
from mtl_core.evaluation.bootstrap import HEADLINES
from mtl_core.evaluation.pages import plots
from mtl_core.evaluation.pages.html_page import header, page
from mtl_core.evaluation.pages.score_text import NO_VALUE, SCORE_NAMES, interval, percent
from mtl_core.evaluation.pages.task_section import Curves, figure, levels, sampled_parts, task_section
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction

MAX_ROWS = 1000
MAX_NAMED = 20  # tracks without sound
N_PICTURED = 4  # best tracks, and as many worst ones


def format_report(result: Mapping[str, Any]) -> str:
    """A table of the headline scores for a terminal, with 95% intervals and chance."""
    lines = [
        f"{result['model_id']} on {result['on']}: {result['n_tracks']:,} tracks, {result['n_segments']:,} segments",
    ]
    names = list(levels(next(iter(result["tasks"].values()))))
    lines.append(f"{'':<24}{''.join(f'{name:<22}' for name in names)}{'chance':>7}")
    for task, scores in result["tasks"].items():
        tracks = scores["tracks"]
        covered = f"{tracks['classes_covered']:,} of {tracks['classes']:,} classes"
        lines.append(f"{task}: {tracks['n']:,} labelled tracks, {covered}")
        for key in HEADLINES:
            cells = [f"{percent(level[key])} {interval(level['ci'].get(key))}" for level in levels(scores).values()]
            chance = percent(tracks["chance"].get(CHANCE_KEYS[key]))
            lines.append(f"  {SCORE_NAMES[key]:<22}{''.join(f'{cell:<22}' for cell in cells)}{chance:>7}")
        lines += [f"  {part}: {text}" for part, text in sampled_parts(scores).items()]
    lines += [f"without sound, not scored: {_without_sound(result)}"] if result.get("without_sound") else []
    return "\n".join(lines)


def render_report(
    result: Mapping[str, Any],
    tracks: Sequence[TrackPrediction],
    history: Sequence[Mapping[str, Any]] = (),
    *,
    curves: Mapping[str, Curves] | None = None,
    mels: Mapping[str, np.ndarray] | None = None,
) -> str:
    """The report as one HTML file.

    Args:
        result: what metrics.json holds.
        tracks: the evaluated tracks with sound, in any order.
        history: the epochs of the training, for `plots.plot_training`.
        curves: result of `task_section.class_curves`.
        mels: track_id -> log-mel frames (T, F) of the tracks of `best_and_worst`.
    """
    curves = curves or {}
    sections = [_head(result)]
    for task, scores in result["tasks"].items():
        rows = [track.by_task[task] for track in tracks]
        sections.append(task_section(task, scores, rows, curves.get(task, {})))
    if any(epoch.get("train_loss") is not None for epoch in history):
        sections.append(f"<section><h2>Training</h2>{_training(history)}</section>")
    sections += [_pictures(tracks, mels or {}), _track_list(tracks)]
    return page(f"{result['model_id']} on {result['on']}", "\n".join(sections))


def _without_sound(result: Mapping[str, Any]) -> str:
    """The number of tracks without sound, and the first of them."""
    names = result["without_sound"]
    listed = ", ".join(names[:MAX_NAMED])
    return (
        f"{len(names):,} {'track' if len(names) == 1 else 'tracks'} ({listed}{', …' if len(names) > MAX_NAMED else ''})"
    )


def _training(history: Sequence[Mapping[str, Any]]) -> str:
    losses = [(h["validation_loss"], h["epoch"]) for h in history if h.get("validation_loss") is not None]
    title = f"The validation loss is lowest in epoch {min(losses)[1]} of {len(history)}" if losses else "Training loss"
    return figure(title, plots.plot_training(history), "Loss of training and validation segments by epoch.")


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
    note = ""
    if result.get("without_sound"):
        note = f'<p class="note">Without sound, so that no score counts them: {escape(_without_sound(result))}</p>'
    return f'{header("Evaluation", facts)}<div class="cards">{"".join(cards)}</div>{note}'


def _scale(scores: Mapping[str, Any], key: str) -> str:
    """A line from 0 to 100% with the score, its interval and chance."""
    value, ci, chance = scores[key], scores["ci"].get(key), scores["chance"].get(CHANCE_KEYS[key])
    marks = "" if ci is None else f'<i class="interval" style="left:{ci[0]:.2%};width:{ci[1] - ci[0]:.2%}"></i>'
    marks += "" if chance is None else f'<i class="chance" style="left:{chance:.2%}"></i>'
    marks += "" if value is None else f'<i class="dot" style="left:{value:.2%}"></i>'
    return f'<div class="scale">{marks}</div>'


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
<div class="row n2">{"".join(columns)}</div></section>"""


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
wrong prediction, ? a null tag, which is unknown.{selection}</p>
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
