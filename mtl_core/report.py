"""Report: what an evaluation found, as one HTML page that needs nothing else, for people who look rather than read.

Contents: `html` (the page), `text` (the same figures, short, for a terminal). Both take what `metrics.json` holds;
scores are shares from 0 to 1 there and percent here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mtl_core import plots
from mtl_core.evaluation import EvaluatedTrack, Said

MAX_ROWS = 1000
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


def text(result: Mapping[str, Any]) -> str:
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


def html(result: Mapping[str, Any], tracks: Sequence[EvaluatedTrack], history: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page.

    Args:
        result: what metrics.json holds.
        tracks: the evaluated ones, in any order.
        history: the training's epochs, for `plots.training_curves`.
    """
    parts = [_head(result), *(_task(task, found, tracks) for task, found in result["tasks"].items())]
    if any(epoch.get("train_loss") is not None for epoch in history):
        parts.append(f"<section><h2>Training</h2><figure>{plots.training_curves(history)}</figure></section>")
    parts.append(_tracks(tracks))
    title = escape(f"{result['model_id']} on {result['on']}")
    return _PAGE.replace("TITLE", title, 1).replace("BODY", "\n".join(parts), 1)


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


def _task(task: str, found: Mapping[str, Any], tracks: Sequence[EvaluatedTrack]) -> str:
    of_tracks = found["tracks"]
    said = [track.said[task] for track in tracks if track.said[task].p_true is not None]
    if not said:
        return (
            f"<section><h2>{escape(task)}</h2><p>No track of this part has a label that the model knows.</p></section>"
        )
    per_class = of_tracks["per_class"]
    shown = [c for c, ap in enumerate(per_class["auc_pr"]) if ap is not None]
    columns = [[per_class[key][c] for c in shown] for key in ("auc_pr", "auc_pr_chance", "support")]
    bars = plots.average_precisions(task, [found["labels"][c] for c in shown], *columns)
    names = _in_order(found["labels"], {s.true for s in said} | {s.first for s in said}, found.get("order"))
    index = {name: i for i, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), int)
    for (true, first), count in Counter((s.true, s.first) for s in said).items():
        counts_CC[index[str(true)], index[first]] = count
    missing = of_tracks["classes"] - len(shown)
    absent = f" The other {missing} have no track in this part." if missing else ""
    ece, nll = _percent(of_tracks["ece"]), f"{of_tracks['nll']:.2f}"
    return f"""<section class="{escape(task)}"><h2>{escape(task).capitalize()}</h2>
{_table(found)}
<div class="pair">
<figure>{bars}<figcaption>Average precision of {len(shown)} of {of_tracks["classes"]} classes, with their number of
tracks.{absent} The tick is what a random order would score.</figcaption></figure>
<figure>{plots.reliability(task, of_tracks["reliability"])}<figcaption>Confidence of the first label against how
often it is right: above the dashed line more often than it says. Calibration error {ece}, negative log-likelihood
{nll} nats.</figcaption></figure>
</div>
<figure class="wide">{plots.confusion(task, names, counts_CC)}<figcaption>Tracks by true and said label, over the labels
that occur; red is wrong.</figcaption></figure></section>"""


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


def _tracks(tracks: Sequence[EvaluatedTrack]) -> str:
    tasks = list(tracks[0].said) if tracks else []
    worst_first = sorted(tracks, key=lambda track: (-_badness(track.said.values()), track.track_id))
    head = "".join(f"<th>{escape(task)}</th><th>said</th><th>confidence</th>" for task in tasks)
    rows = "".join(
        f"<tr><td>{escape(track.track_id)}</td><td>{track.n_segments}</td>"
        + "".join(_said(track.said[task]) for task in tasks)
        + "</tr>"
        for track in worst_first[:MAX_ROWS]
    )
    left_out = f" The worst {MAX_ROWS:,} of {len(tracks):,}." if len(tracks) > MAX_ROWS else ""
    return f"""<section><h2>Tracks, worst first</h2><p class="note">By the probability given to the true labels; ✗ is
wrong, ? is below the threshold and would be tagged unknown.{left_out}</p>
<div class="scroll"><table class="tracks"><thead><tr><th>track</th><th>segments</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _badness(said: Iterable[Said]) -> float:
    """Mean negative log-probability of the true labels; -1 where there are none, so that such tracks come last."""
    losses = [-np.log(max(s.p_true, 1e-12)) for s in said if s.p_true is not None]
    return float(np.mean(losses)) if losses else -1.0


def _said(said: Said) -> str:
    wrong = said.true is not None and said.first != said.true
    true = "<i>no label</i>" if said.true is None else escape(said.true)
    true += " <i>(no class)</i>" if said.true is not None and said.p_true is None else ""
    marks = ("&nbsp;✗" if wrong else "") + ("&nbsp;?" if said.unknown else "")
    return (
        f"<td>{true}</td><td{' class=wrong' if wrong else ''}>{escape(said.first)}{marks}</td>"
        f'<td class="confidence">{said.confidence:.0%}<i style="width:{said.confidence:.1%}"></i></td>'
    )


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}%"


def _interval(ci: Sequence[float] | None) -> str:
    return "" if ci is None else f"[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title><style>
:root { color-scheme: light dark; --paper: #fbfbf9; --panel: #ffffff; --ink: #1d2126; --muted: #646b73; --grid: #dcdfe2;
  --artist: #2f6fb5; --language: #b8651b; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --panel: #1c2024; --ink: #e6e8ea; --muted: #9aa2aa;
  --grid: #363c42; --artist: #6aa9ec; --language: #e59a54; --wrong: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.9rem; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 0 0 .9rem; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--grid); }
dl { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0; }
dl div { display: flex; gap: .45rem; min-width: 0; } dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem; margin-top: 1.8rem; }
.card { background: var(--panel); border: 1px solid var(--grid); border-radius: 8px; padding: 1rem 1.1rem; }
.what { color: var(--muted); } .what::first-letter { text-transform: uppercase; }
.value { font-size: 2.1rem; font-weight: 650; line-height: 1.25; letter-spacing: -.02em; }
.note, figcaption { color: var(--muted); font-size: .86rem; } .note { max-width: 60rem; }
.artist { --task: var(--artist); } .language { --task: var(--language); }
.scale { position: relative; height: 4px; margin: .55rem 0 .7rem; background: var(--grid); border-radius: 2px; }
.scale i { position: absolute; top: 0; height: 4px; }
.scale .band { background: var(--task); opacity: .55; min-width: 2px; }
.scale .chance { width: 2px; margin-left: -1px; height: 12px; top: -4px; background: var(--ink); }
.scale .dot { width: 12px; height: 12px; top: -4px; margin-left: -6px; border-radius: 50%; background: var(--task); }
.scroll, figure.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--grid);
  vertical-align: baseline; }
thead th { color: var(--muted); font-weight: 500; font-size: .86rem; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.scores td, .scores thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.scores span { color: var(--muted); }
.tracks { font-size: .88rem; } .tracks td:first-child { overflow-wrap: anywhere; min-width: 12rem; }
.tracks i { color: var(--muted); }
.wrong { color: var(--wrong); font-weight: 600; }
.confidence { min-width: 5rem; } .confidence i { display: block; height: 2px; background: var(--muted); }
.pair { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; margin-top: 1.6rem; }
.pair figure { flex: 1 1 22rem; min-width: 0; }
figure { margin: 1.2rem 0 0; } figure svg { max-width: 100%; height: auto; display: block; }
figure.wide { width: max-content; max-width: calc(50vw + 50%); }
figure.wide svg { max-width: none; } figure.wide figcaption { position: sticky; left: 0; }
figcaption { margin-top: .5rem; max-width: 40rem; }
svg text { font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
@media print { body { max-width: none; } section, .card { break-inside: avoid; } }
</style></head><body>
BODY
</body></html>
"""
