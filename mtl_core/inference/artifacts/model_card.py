"""Model card: an artifact's README, for the person who finds the folder.

It begins with the metadata by which the Hugging Face Hub lists a model.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.inference.tagging.unknown import NOTHING_IS_NAMED


def model_card(values: Mapping[str, Any], tracks: Mapping[str, int]) -> str:
    """Markdown: the model's purpose, its training data, its scores, its limits, and how to use it.

    `values` is the content of model.json; `tracks` is train | validation | test -> number of tracks.
    """
    classes = {task: len(labels) for task, labels in values["vocabularies"].items()}
    metrics = values["metrics"]
    heads = " and ".join(f"{task} ({count} classes)" for task, count in classes.items())
    parts = ", ".join(f"{tracks.get(part, 0):,} {part}" for part in ("train", "validation", "test"))
    aggregation = values["aggregation"]
    split = json.dumps(metrics.get("split", {}), sort_keys=True)
    temperatures = json.dumps(aggregation["temperature"], sort_keys=True)
    labels = "\n".join(f"- {task}: {', '.join(labels)}" for task, labels in values["vocabularies"].items())
    tags = "".join(f"\n- {task}-identification" for task in classes)
    return f"""---
license: unknown  # fill in; it depends on the recordings that the model was trained on
library_name: mtl-core
pipeline_tag: audio-classification
tags:
- music{tags}
---
# Music tagger: {heads}

`model_id` {values["model_id"]}

## What it is for
It predicts the {" and the ".join(classes)} of a music recording from its sound. A convolutional network predicts for
segments of 3 seconds, and a track's tag pools its segments ({aggregation["method"]}). It is meant for catalogues whose
{" and ".join(f"{task}s" for task in classes)} are those listed below.

## Data
Tracks: {parts}. Split: `{split}`. Fingerprint of the training data: `{values["fingerprint"]}`.
`splits.parquet` lists the tracks of each part.

## Scores
{_out_of_fold(metrics) if metrics.get("out_of_fold") else _scores(metrics)}
{_early_exit(metrics["early_exit"]) if metrics.get("early_exit") else ""}{_changed(metrics.get("changed", ()))}## Limits
- It knows only the classes below. A track of any other artist shall get no name.
{_threshold_lines(aggregation, metrics)}
- It was trained on the recordings above. Other studios, codecs and styles lower its accuracy. Recordings from the same
  album as a training track are recognised far better than new albums ("album effect").
- Confidence estimates the probability of being right for tracks of known artists. Temperatures: `{temperatures}`.
- A cloned or imitated voice may get the name of the voice that it imitates. A name is no proof of who sang.
- A wrong artist or language can matter to people: let them correct the tags.

## How to use it
    mtl-core tag song.mp3 --model THIS_FOLDER
    mtl-core tag_catalogue --manifest MANIFEST --model THIS_FOLDER --out OUT
    mtl-core evaluate --model THIS_FOLDER --mels MELS --out REPORT

`model.onnx` is the network alone, for any ONNX runtime: "mel" (segments, 1, 187, 96) -> "embedding" and the logits of
each task. A track's tag follows from the mean embedding of its segments, by the numbers in `model.json`.

## Classes
{labels}

## How it was made
Recipe: `{json.dumps(values["recipe"], sort_keys=True)}`

Versions: `{json.dumps(values["versions"], sort_keys=True)}`
"""


def _threshold_lines(aggregation: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    scores = aggregation.get("score", {})
    lines = []
    for task, threshold in aggregation["threshold"].items():
        if task not in metrics.get("tasks", aggregation["threshold"]):
            continue
        if threshold is None:
            lines.append(f'- {task}: it never answers "unknown", because no threshold is set.')
        elif threshold >= NOTHING_IS_NAMED:
            asked = ""
            if "precision" in metrics:
                unknown = f"{metrics['unknown_share']:.0%} of the tracks of unknown artists"
                asked = f" of {metrics['precision']:.0%} with {unknown}"
            lines.append(
                f"- {task}: **every tag is null**, because no threshold reached the precision{asked}. Top lists and "
                "scores are there."
            )
        else:
            lines.append(
                f"- {task}: the tag is null where the score ({scores.get(task, 'probability')}) is below "
                f"{threshold:.4g}. Readers can choose another threshold on the column `{task}_score`."
            )
    return "\n".join(lines)


def _out_of_fold(metrics: Mapping[str, Any]) -> str:
    """The scores of a cross-fitted model: what its fold models say of tracks that they did not train on."""
    rows, named = [], []
    for task, scores in metrics["out_of_fold"].items():
        tracks, unknown = scores["tracks"], scores["unknown"]
        cells = [f"{tracks['n']:,} songs of {tracks['classes_covered']:,} classes"]
        cells += [_percent(tracks[key], tracks["ci"].get(key)) for key in ("top_1", "auc_pr_macro")]
        cells += [_percent(scores["ece_before"]), _percent(tracks["ece"], tracks["ci"].get("ece"))]
        cells += [_percent(unknown["auroc"], unknown["ci"])]
        linear = scores.get("baselines", {}).get("linear")
        cells += [_percent(linear[key]) if linear else "not defined" for key in ("top_1", "auc_pr_macro")]
        rows.append(f"| {task} | {' | '.join(cells)} |")
        named += [
            f"| {task} | {row['unknown_share']:.0%} | {_percent(row['precision'])} | {_percent(row['coverage'])} |"
            for row in unknown["named"]
        ]
    heads = (
        "| task | new songs of known artists | top-1 | AUC-PR macro | ECE before | ECE | AUROC known, unknown "
        "| linear: top-1 | AUC-PR |"
    )
    return f"""Each song was scored by models that did not train on it, once as a song of a known artist and once as one
of an unknown artist (`out_of_fold.parquet`). In brackets: 95% bootstrap intervals over songs, of AUROC over artists.

{heads}
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

"linear" is a baseline without a network, a discriminant analysis of band statistics, on the same folds.

What the threshold gives, by the share of the catalogue's tracks that are of unknown artists. It was chosen on the same
songs, by a lower bound, for a precision of {metrics["precision"]:.0%} at a share of {metrics["unknown_share"]:.0%}:

| task | unknown | names that are right | songs of known artists with a name |
| --- | --- | --- | --- |
{chr(10).join(named)}
"""


def _changed(changes: Sequence[Mapping[str, Any]]) -> str:
    """What was changed in the classes after the training."""
    if not changes:
        return ""
    lines = []
    for change in changes:
        if "enrolled" in change:
            of = ", ".join(f"{label} ({n} track{'' if n == 1 else 's'})" for label, n in change["enrolled"].items())
            lines.append(f"- {change['task']}: enrolled {of}")
        elif "removed" in change:
            lines.append(f"- {change['task']}: removed {', '.join(change['removed'])}")
        else:
            lines.append(
                f"- {change['task']}: {', '.join(f'{old} is {new} now' for old, new in change['renamed'].items())}"
            )
    return f"""## Changed after the training
{chr(10).join(lines)}

An enrolled class is the mean of the embeddings of its tracks; nothing was trained for it. Scores, temperatures and
thresholds are those of the classes before.

"""


def _early_exit(exits: Mapping[str, Any]) -> str:
    """What the rule of early exit does on the out-of-fold tracks."""
    ends = [*exits["known"]]
    rows = "\n".join(
        f"| {name} | {' | '.join(_percent(exits[name][end]) for end in ends)} |"
        for name in ("known", "unknown")
        if name in exits
    )
    return f"""Tracks are decoded in rounds, until more segments would not change their tags. On the out-of-fold tracks,
on which the rule was chosen, it reads {exits["mean_segments"]:.1f} segments instead of {exits["mean_of_all"]:.1f}, and
{_percent(exits["agreement"])} get the tags of all their segments. Share of the tracks by the segments they need:

| artists | {" | ".join(ends)} |
| --- |{" ---: |" * len(ends)}
{rows}

"""


def _percent(share: float | None, ci: Sequence[float] | None = None) -> str:
    if share is None:
        return "not defined"
    return f"{share:.1%}" + (f" [{ci[0]:.1%}, {ci[1]:.1%}]" if ci else "")


def _scores(metrics: Mapping[str, Any]) -> str:
    validation = metrics.get("validation", {})
    if not validation:
        return "None: all tracks were trained on, and the model is not calibrated.\n"
    rows = "\n".join(
        f"| {task} | {score['segments']:,} | {score['top1']:.1%} | {score['chance']:.1%} |"
        for task, score in validation.items()
    )
    caption = f"Validation segments, epoch {metrics['best_epoch']} of {metrics['epochs']}, seed {metrics['seed']}"
    return f"""{caption}:

| task | segments | top-1 | chance |
| --- | --- | --- | --- |
{rows}

These tracks also chose the checkpoint and the temperature, so the scores are optimistic. `mtl-core evaluate` scores the
test part.
"""
