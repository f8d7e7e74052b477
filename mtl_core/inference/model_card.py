"""Model card: an artifact's README, for the person who finds the folder."""

import json
from collections.abc import Mapping
from typing import Any


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
    return f"""# Music tagger: {heads}

`model_id` {values["model_id"]}

## What it is for
It predicts the {" and the ".join(classes)} of a music recording from its sound. A convolutional network predicts for
segments of 3 seconds, and a track's tag pools its segments ({aggregation["method"]}). It is meant for catalogues whose
{" and ".join(f"{task}s" for task in classes)} are those listed below.

## Data
Tracks: {parts}. Split: `{split}`. Fingerprint of the training data: `{values["fingerprint"]}`.
`splits.parquet` lists the tracks of each part.

## Scores
{_scores(metrics)}
These tracks also chose the checkpoint and the temperature, so the scores are optimistic. `mtl-core evaluate` scores the
test part.

## Limits
- It knows only the classes below. A track of any other artist or language gets one of them, often with high confidence.
{_threshold_line(aggregation["threshold"])}
- It was trained on the recordings above. Other studios, codecs and styles lower its accuracy. Recordings from the same
  album as a training track are recognised far better than new albums ("album effect").
- Confidence is calibrated with one temperature per task on the validation tracks: `{temperatures}`. It estimates the
  probability of being right for tracks of known classes.
- A wrong artist or language can matter to people: let them correct the tags.

## How to use it
    mtl-core tag song.mp3 --model THIS_FOLDER
    mtl-core tag_catalogue --manifest MANIFEST --model THIS_FOLDER --out OUT
    mtl-core evaluate --model THIS_FOLDER --mels MELS --out REPORT

## Classes
{labels}

## How it was made
Recipe: `{json.dumps(values["recipe"], sort_keys=True)}`

Versions: `{json.dumps(values["versions"], sort_keys=True)}`
"""


def _threshold_line(thresholds: Mapping[str, float | None]) -> str:
    if all(threshold is None for threshold in thresholds.values()):
        return '- It never answers "unknown": no confidence threshold is set.'
    return f"- Below these confidences the label is null: `{json.dumps(thresholds, sort_keys=True)}`."


def _scores(metrics: Mapping[str, Any]) -> str:
    validation = metrics.get("validation", {})
    if not validation:
        return "None: there was no validation part.\n"
    rows = "\n".join(
        f"| {task} | {score['segments']:,} | {score['top1']:.1%} | {score['chance']:.1%} |"
        for task, score in validation.items()
    )
    caption = f"Validation segments, epoch {metrics['best_epoch']} of {metrics['epochs']}, seed {metrics['seed']}"
    return f"{caption}:\n\n| task | segments | top-1 | chance |\n| --- | --- | --- | --- |\n{rows}\n"
