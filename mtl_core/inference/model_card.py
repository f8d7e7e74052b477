"""Card: an artifact's README, for the person who finds the folder."""

import json
from collections.abc import Mapping
from typing import Any


def model_card(values: Mapping[str, Any], tracks: Mapping[str, int]) -> str:
    """Markdown: what the model is for, what it was trained on, its scores, its limits, how to use it.

    Args:
        values: the content of model.json.
        tracks: part of the split -> number of tracks.
    """
    classes = {task: len(labels) for task, labels in values["vocabularies"].items()}
    metrics = values["metrics"]
    heads = " and ".join(f"{task} ({count} classes)" for task, count in classes.items())
    parts = ", ".join(f"{tracks.get(part, 0):,} {part}" for part in ("train", "validation", "test"))
    aggregation = values["aggregation"]
    split = json.dumps(metrics.get("split", {}), sort_keys=True)
    thresholds, temperatures = (json.dumps(aggregation[name], sort_keys=True) for name in ("threshold", "temperature"))
    labels = "\n".join(f"- {task}: {', '.join(labels)}" for task, labels in values["vocabularies"].items())
    return f"""# Music tagger: {heads}

`model_id` {values["model_id"]}

## What it is for
It names the {" and the ".join(classes)} of a music recording from its sound: a convolutional network hears segments of
3 seconds, and a track's tag is the pooled opinion of its segments ({aggregation["method"]}). It is meant for
catalogues whose {" and ".join(f"{task}s" for task in classes)} are those listed below.

## Data
Tracks: {parts}. Split: `{split}`. Fingerprint of the training data: `{values["fingerprint"]}`.
Which track was in which part is in `splits.parquet`.

## Scores
{_scores(metrics)}
These choose the checkpoint and the temperature, so they flatter; the test part's scores come from `jobs/evaluate.py`.

## Limits
- It knows only its own classes: a track of any other gets the nearest of them. Confidence below which it says nothing:
  `{thresholds}`.
- It has learnt from the recordings above; other studios, codecs and styles cost accuracy. Recordings of the same album
  as a training track are recognised far better than new albums ("album effect").
- Confidence is calibrated by one temperature a task on the validation tracks: `{temperatures}`.
- Naming a person or a language from sound can be wrong in ways that matter: let people correct the tags.

## How to use it
    python jobs/tag_catalogue.py --manifest MANIFEST --model THIS_FOLDER --out OUT
    python jobs/evaluate.py --model THIS_FOLDER --mels MELS --out REPORT

## Classes
{labels}

## How it was made
Recipe: `{json.dumps(values["recipe"], sort_keys=True)}`

Versions: `{json.dumps(values["versions"], sort_keys=True)}`
"""


def _scores(metrics: Mapping[str, Any]) -> str:
    validation = metrics.get("validation", {})
    if not validation:
        return "None were taken: there was no validation part.\n"
    rows = "\n".join(
        f"| {task} | {score['segments']:,} | {score['top1']:.1%} | {score['chance']:.1%} |"
        for task, score in validation.items()
    )
    where = f"Validation segments, epoch {metrics['best_epoch']} of {metrics['epochs']}, seed {metrics['seed']}"
    return f"{where}:\n\n| task | segments | top-1 | chance |\n| --- | --- | --- | --- |\n{rows}\n"
