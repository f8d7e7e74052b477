"""Enrol: a model and a few labelled tracks -> the model with more classes, or with fewer, or with other names.

Nothing is trained. The tracks' embeddings come from a table of tags, or are computed from mels on Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.dataset.label_file import read_label_file
from mtl_core.dataset.vocabulary import TASKS, class_labels
from mtl_core.errors import InputError
from mtl_core.inference import enrolment
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.storage.checks import check_reachable, check_writable
from mtl_core.storage.location import Location
from mtl_core.tables.embeddings import read_embeddings


@dataclass(frozen=True, kw_only=True)
class EnrolOptions:
    """What changes in a model.

    Raises:
        ValueError: a value is not allowed.
    """

    task: str = "artist"
    """The task whose classes change: artist or language."""
    remove: tuple[str, ...] = ()
    """Classes to remove."""
    rename: tuple[str, ...] = ()
    """Classes to rename, each as OLD=NEW."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        for name in self.rename:
            if name.count("=") != 1:
                raise ValueError(f"rename must be OLD=NEW, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class LabelledEmbeddings:
    """The mean embeddings of some tracks, by class."""

    of_class: Mapping[str, np.ndarray] = field(default_factory=dict)  # label -> (N, E)
    track_ids: Sequence[str] = ()


def enrol(model: Location, out: Location, tracks: LabelledEmbeddings, options: EnrolOptions) -> str:
    """Write a changed model: classes are removed, then renamed, then enrolled.

    Args:
        model: folder of the artifact, whose heads are class means (recipe `best`).
        out: folder of the new artifact.
        tracks: of the classes to enrol.
        options: the other changes.

    Returns:
        A summary for people.

    Raises:
        InputError: there is nothing to change, or a change is not possible.
    """
    if not (tracks.of_class or options.remove or options.rename):
        raise InputError("nothing to change: give tracks to enrol, or --remove or --rename")
    if model == out:
        raise InputError(f"{out} is the model itself: runs may be using it, so write another folder")
    check_writable(out)
    changed = artifacts.load_artifact(model)
    if options.remove:
        changed = enrolment.remove(changed, options.task, options.remove)
    for name in options.rename:
        changed = enrolment.rename(changed, options.task, *name.split("="))
    if tracks.of_class:
        changed = enrolment.enrol(changed, options.task, tracks.of_class)
    splits = artifacts.load_splits(model)
    known = set(splits["track_id"].to_pylist())
    new = [track_id for track_id in tracks.track_ids if track_id not in known]
    added = pa.table({"track_id": pa.array(new, pa.string()), "split": pa.array(["train"] * len(new), pa.string())})
    model_id = artifacts.save_artifact(changed, pa.concat_tables([splits, added.cast(splits.schema)]), out)
    done = [f"enrolled {label} from {len(of):,} tracks" for label, of in tracks.of_class.items()]
    done += [f"removed {label}" for label in options.remove] + [f"renamed {name}" for name in options.rename]
    return f"model {model_id}: {len(changed.vocabularies[options.task]):,} {options.task}s; {'; '.join(done)}\n-> {out}"


def from_table(model: Location, tags: Location, labels: Location, task: str) -> LabelledEmbeddings:
    """The embeddings of the tracks of a labels.csv that a table of tags holds.

    Raises:
        InputError: a file cannot be read, a class has no track with an embedding, or rows are of another trunk.
    """
    check_reachable(tags)
    lines = read_label_file(labels)
    given = class_labels(task, [row.get(task) for row in lines.values()])
    ids = [row.get("track_id") or path for path, row in lines.items()]
    label_of = {track_id: label for track_id, label in zip(ids, given, strict=True) if label is not None}
    if not label_of:
        raise InputError(f"{labels}: no track has a label in the column {task!r}")
    rows = read_embeddings(tags, list(label_of))
    trunk_id = artifacts.trunk_id(artifacts.load_artifact(model))
    others = rows.filter(pc.not_equal(rows["trunk_id"].fill_null(""), trunk_id))
    if len(others):
        example = others["track_id"][0].as_py()
        raise InputError(
            f"{tags}: the embeddings of {len(others):,} tracks are of another model's trunk, e.g. {example!r}: tag "
            "them with a model of this trunk first"
        )
    return _by_class(rows.filter(rows["embedding"].is_valid()), label_of, task, str(labels))


def from_mels(model: Location, mels: Location, task: str, num_workers: int | None = None) -> LabelledEmbeddings:
    """The embeddings of the labelled tracks of mels that the model was not trained on.

    Raises InputError as `predict`, or where a class has no track with sound.
    """
    from mtl_core.dataset.mel_dataset import open_mel_dataset
    from mtl_core.pipelines.predict import NEW, predict

    artifact, dataset = artifacts.load_artifact(model), open_mel_dataset(mels)
    predicted, _ = predict(artifact, dataset, model, mels, on=NEW, num_workers=num_workers)
    ids, labels = (predicted.tracks[name].to_pylist() for name in ("track_id", task))
    silent = dict(zip(*(predicted.without_sound[name].to_pylist() for name in ("track_id", task)), strict=True))
    label_of = dict(zip(ids, labels, strict=True)) | silent
    label_of = {track_id: label for track_id, label in label_of.items() if label is not None}
    rows = pa.table({"track_id": ids, "embedding": list(predicted.embedding_NE)})
    return _by_class(rows, label_of, task, str(mels))


def _by_class(rows: pa.Table, label_of: Mapping[str, str], task: str, source: str) -> LabelledEmbeddings:
    of_class: dict[str, list[np.ndarray]] = {label: [] for label in sorted(set(label_of.values()))}
    for track_id, embedding in zip(rows["track_id"].to_pylist(), rows["embedding"].to_pylist(), strict=True):
        if track_id in label_of:
            of_class[label_of[track_id]].append(np.array(embedding, np.float32))
    without = [label for label, embeddings in of_class.items() if not embeddings]
    if without:
        raise InputError(f"{source}: the {task} {without[0]!r} has no track with an embedding ({len(without)} in all)")
    return LabelledEmbeddings(
        of_class={label: np.stack(embeddings) for label, embeddings in of_class.items()},
        track_ids=[track_id for track_id in rows["track_id"].to_pylist() if track_id in label_of],
    )
