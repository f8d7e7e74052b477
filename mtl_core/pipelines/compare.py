"""Compare: a new model against the one in use, on tracks that neither was trained on -> a page to decide by.

Without mels, cross-fitted models are compared on the out-of-fold rows of the songs that both have. With mels, models
are compared on their tracks, which must be in the splits of neither.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.errors import InputError
from mtl_core.evaluation import comparison, predictions
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.evaluation.pages.comparison_page import comparison_page
from mtl_core.evaluation.predictions import TaskPrediction, TrackPrediction
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.pipelines.predict import NEW, predict
from mtl_core.pipelines.tag_changes import find_tag_changes
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """When a model counts as worse.

    Raises:
        ValueError: a value is not allowed.
    """

    margin: float = 0.0
    """Loss of AUC-PR that is accepted, 0 to 1. The new model is worse where the whole 95 % interval of the difference
    is below it."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over songs, 1 or more."""
    seed: int = 0
    """Seed of the bootstrap, and of the sample where there are very many tracks, >= 0."""
    num_workers: int | None = None
    """Worker processes for mels; by default one for each CPU of the cluster."""
    decoded_tracks: int = 100
    """Tracks of the night's table that are decoded where the models have another trunk, 1 or more."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must be 0 to 1, got {self.margin:g}")
        if self.resamples < 1 or self.seed < 0:
            raise ValueError(f"resamples must be 1 or more and seed >= 0, got {self.resamples} and {self.seed}")
        if self.decoded_tracks < 1:
            raise ValueError(f"decoded-tracks must be 1 or more, got {self.decoded_tracks}")


def compare(
    new_at: Location,
    old_at: Location,
    mels: Location | None,
    out: Location,
    options: ComparisonOptions,
    tags: Location | None = None,
) -> dict[str, Any]:
    """Compare two models, and write `comparison.json` and `comparison.html`.

    Args:
        new_at, old_at: folders of the artifacts.
        mels: of labelled tracks; None: on the out-of-fold rows of cross-fitted models.
        out: folder of the two files.
        tags: folder of a night's tables, whose tags are of the old model; None: they are not looked at.

    Returns:
        The content of comparison.json: for each task both have, what `comparison.compare` returns, and whether the new
        model is `worse`; `table`, how the tags of the night would change, as `TagChanges`, or None.

    Raises:
        InputError: the models share no task or no track, or one of them was trained on a track of the mels.
    """
    check_writable(out)
    new, old = artifacts.load_artifact(new_at), artifacts.load_artifact(old_at)
    tasks = [task for task in new.vocabularies if task in old.vocabularies]
    if not tasks:
        raise InputError(f"{new_at} and {old_at} have no task in common")
    table = None
    if tags is not None:  # first, because a wrong location must not cost the predictions
        table = asdict(
            find_tag_changes(
                load_cpu_model(new_at),
                new_at,
                artifacts.model_id(old),
                tags,
                seed=options.seed,
                decoded_tracks=options.decoded_tracks,
            )
        )
    if mels is None and new.out_of_fold is not None and old.out_of_fold is not None:
        on, pairs = "out-of-fold rows of both", _out_of_fold(new, old, tasks)
    else:
        on, pairs = str(mels), _on_mels(new, new_at, old, old_at, mels, options)
    rng = np.random.default_rng(options.seed)
    result: dict[str, Any] = {
        "new": {"model": str(new_at), "model_id": artifacts.model_id(new)},
        "old": {"model": str(old_at), "model_id": artifacts.model_id(old)},
        "same_trunk": artifacts.trunk_id(new) == artifacts.trunk_id(old),
        "on": on,
        "margin": options.margin,
        "tasks": {},
    }
    for task in tasks:
        labelled = [
            (track_id, a.by_task[task], b.by_task[task]) for track_id, a, b in pairs if a.by_task[task].true is not None
        ]
        if not labelled:
            continue
        if len(labelled) > comparison.MAX_TRACKS:
            chosen = np.sort(rng.choice(len(labelled), comparison.MAX_TRACKS, replace=False))
            labelled = [labelled[i] for i in chosen]
        ids, of_new, of_old = zip(*labelled, strict=True)
        compared = comparison.compare(
            list[TaskPrediction](of_new),
            list[TaskPrediction](of_old),
            np.array(ids),
            resamples=options.resamples,
            seed=options.seed,
        )
        result["tasks"][task] = compared | {"worse": comparison.is_worse(compared, options.margin)}
    if not result["tasks"]:
        raise InputError(f"{new_at} and {old_at}: there is no labelled track that both can be compared on ({on})")
    result["table"] = table
    result["worse"] = any(of["worse"] for of in result["tasks"].values())
    (out / "comparison.json").write_json(result)
    (out / "comparison.html").write_bytes(comparison_page(result).encode())
    return result


def _out_of_fold(new: Artifact, old: Artifact, tasks: list[str]) -> list[tuple[str, TrackPrediction, TrackPrediction]]:
    """(track_id, new, old) of the songs that were a known artist's new song for both."""
    found = []
    for artifact in (new, old):
        rows = artifact.out_of_fold
        assert rows is not None
        rows = rows.filter(pc.and_(rows["known"], pc.greater(rows["n_segments"], 0)))
        found.append({of.track_id: of for of in predictions.out_of_fold_predictions(rows, tasks)})
    return _shared(*found)


def _shared(
    new: dict[str, TrackPrediction], old: dict[str, TrackPrediction]
) -> list[tuple[str, TrackPrediction, TrackPrediction]]:
    """(track_id, new, old) of the tracks that both have."""
    return [(track_id, of, old[track_id]) for track_id, of in sorted(new.items()) if track_id in old]


def _on_mels(
    new: Artifact,
    new_at: Location,
    old: Artifact,
    old_at: Location,
    mels: Location | None,
    options: ComparisonOptions,
) -> list[tuple[str, TrackPrediction, TrackPrediction]]:
    if mels is None:
        raise InputError("the models are not both cross-fitted: give --mels of labelled tracks that neither has seen")
    dataset = open_mel_dataset(mels)
    ids = dataset.tracks["track_id"]
    for location in (new_at, old_at):
        seen = pc.is_in(ids, pa.array(artifacts.load_splits(location)["track_id"].combine_chunks()))
        if pc.any(seen).as_py():
            example = ids.filter(seen)[0].as_py()
            raise InputError(
                f"{mels}: {pc.sum(seen).as_py():,} tracks are in the splits of {location}, e.g. {example!r}: compare "
                "on tracks that neither model has seen"
            )
    found = []
    for artifact, location in ((new, new_at), (old, old_at)):
        predicted, _ = predict(artifact, dataset, location, mels, on=NEW, num_workers=options.num_workers)
        found.append({of.track_id: of for of in predictions.track_predictions(predicted)})
    return _shared(*found)
