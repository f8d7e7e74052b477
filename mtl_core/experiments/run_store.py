"""Result: what one training of an experiment came to, and how it is stored.

    OUT/runs/KEY/logits.parquet   the test part, one row a segment: track_id, artist, language (true labels), and for
                                  each task of the model its logits, list<float32> in the vocabulary's order
    OUT/runs/KEY/run.json         everything else of a `Result`; written last: it makes the run stored
    OUT/models/KEY                the artifact

A run's key names all that tells it from the others of the experiment; the mels and the numbers of its recipe must be
the same for all time, and are checked. Legend: S segments, C classes.
"""

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import InputError
from mtl_core.evaluation import baselines
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.artifact import Artifact
from mtl_core.model.recipes import Recipe, recipe
from mtl_core.storage.location import Location, as_input_error

BOTH = "both"
VARIANTS = (*TASKS, BOTH)
RUNS, MODELS, LOGITS, RUN = "runs", "models", "logits.parquet", "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of an experiment.

    Args:
        recipe: its name.
        tasks: one of `VARIANTS`.
        split, fold, group_column: as in `splits.split`; fold is 0 in all kinds but `kfold`.
        seed: of the split and of the training.
        epochs: >= 1.
        alpha: weight of the language loss of a multi-task model, >= 0; None is the recipe's own.
    """

    recipe: str
    tasks: str
    split: str
    fold: int
    group_column: str | None
    seed: int
    epochs: int
    alpha: float | None = None

    @property
    def key(self) -> str:
        """The name of its folder."""
        fold = f"-fold-{self.fold}" if self.split == "kfold" else ""
        by = f"-by-{self.group_column}" if self.group_column else ""
        weight = "" if self.alpha is None else f"-alpha-{self.alpha:.12g}"
        return f"{self.recipe}-{self.tasks}-{self.split}{by}{fold}-seed-{self.seed}-epochs-{self.epochs}{weight}"

    @property
    def of_tasks(self) -> tuple[str, ...]:
        """What is trained."""
        return TASKS if self.tasks == BOTH else (self.tasks,)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a training came to.

    Args:
        run: which.
        fingerprint: of the mels.
        recipe: every number of its recipe; JSON values.
        heard: the test part.
        priors: task -> (C,) how frequent each class is in the training part.
        language_of: artist -> its language in the training part.
        metrics: of the artifact: split, history, best epoch, counts; JSON values.
    """

    run: Run
    fingerprint: str
    recipe: dict[str, Any]
    heard: Predictions
    priors: dict[str, list[float]]
    language_of: dict[str, str]
    metrics: dict[str, Any]


def result(run: Run, artifact: Artifact, heard: Predictions, training: pa.Table) -> RunResult:
    """A `Result` out of a run's artifact, what that makes of the test part, and the tracks of the training part."""
    priors = {
        task: baselines.class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary)).tolist()
        for task, vocabulary in heard.vocabularies.items()
    }
    return RunResult(
        run=run,
        fingerprint=artifact.fingerprint,
        recipe=artifact.recipe,
        heard=heard,
        priors=priors,
        language_of=baselines.artist_languages([training]),
        metrics=artifact.metrics,
    )


def stored_runs(out: Location) -> list[str]:
    """Keys of the runs that are stored under `out`, sorted."""
    with as_input_error(out):
        if not (out / RUNS).exists():
            return []
        found = [path for path, _ in (out / RUNS).walk()]
    return sorted(path.removesuffix(f"/{RUN}") for path in found if path.endswith(f"/{RUN}"))


def save_run(found: RunResult, out: Location) -> None:
    """Store a run under `out`."""
    heard, folder = found.heard, out / RUNS / found.run.key
    lengths = heard.n_segments
    columns: dict[str, Any] = {
        name: np.repeat(np.array(heard.tracks[name].to_pylist(), object), lengths) for name in ("track_id", *TASKS)
    }
    arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
    for task in heard.vocabularies:
        logits_SC = np.concatenate(heard.logits[task]).astype(np.float32)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(logits_SC.ravel()), logits_SC.shape[1])
        arrays[f"{task}_logits"] = rows.cast(pa.list_(pa.float32()))
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    values = {
        "run": asdict(found.run),
        "fingerprint": found.fingerprint,
        "recipe": found.recipe,
        "vocabularies": {task: list(vocabulary.labels) for task, vocabulary in heard.vocabularies.items()},
        "aggregation": heard.aggregation.to_dict(),
        "priors": found.priors,
        "language_of": found.language_of,
        "metrics": found.metrics,
    }
    with as_input_error(out):
        (folder / LOGITS).write_bytes(sink.getvalue())
        (folder / RUN).write_bytes((json.dumps(values, indent=1) + "\n").encode())


def load_run(key: str, out: Location) -> RunResult:
    """A stored run.

    Raises:
        InputError: a file of it is damaged.
    """
    folder = out / RUNS / key
    with as_input_error(folder):
        try:
            values = json.loads((folder / RUN).read_bytes())
            table = pq.read_table(io.BytesIO((folder / LOGITS).read_bytes()))
            vocabularies = {task: Vocabulary(tuple(labels)) for task, labels in values["vocabularies"].items()}
            track_ids = table["track_id"].to_numpy()
            starts = np.flatnonzero(np.append(True, track_ids[1:] != track_ids[:-1]))
            logits = {}
            for task, vocabulary in vocabularies.items():
                flat = table[f"{task}_logits"].combine_chunks().flatten().to_numpy()
                logits[task] = np.split(flat.reshape(-1, len(vocabulary)), starts[1:])
            return RunResult(
                run=Run(**values["run"]),
                fingerprint=values["fingerprint"],
                recipe=values["recipe"],
                heard=Predictions(
                    tracks=table.select(["track_id", *TASKS]).take(starts),
                    logits=logits,
                    vocabularies=vocabularies,
                    aggregation=Aggregation.from_dict(values["aggregation"]),
                ),
                priors=values["priors"],
                language_of=values["language_of"],
                metrics=values["metrics"],
            )
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise InputError(f"{folder} is no stored run: {' '.join(str(error).split())}: delete it") from None


def check_same(results: Iterable[RunResult], fingerprint: str, out: Location) -> None:
    """That stored runs are of these mels, and of their recipes as they are now.

    Raises:
        InputError: one is not.
    """
    for found in results:
        place = out / RUNS / found.run.key
        if found.fingerprint != fingerprint:
            raise InputError(f"{place} is of other mels (data, labels or front end): choose another --out")
        differs = recipe_differences(found.recipe, found.run)
        if differs:
            raise InputError(
                f"{place} was trained when the recipe {found.run.recipe!r} had {differs}: name the new one otherwise, "
                f"or delete the run and its model"
            )


def recipe_differences(numbers: dict[str, Any], run: Run) -> str:
    """In what the numbers of a stored recipe differ from today's, in words; "" where in nothing.

    A number that recipes did not have at the time counts as its default; a recipe that is gone, as it was.
    """
    try:
        today = recipe(run.recipe, epochs=run.epochs, alpha=run.alpha)
    except InputError:
        return ""
    now = _through_json(asdict(today))
    then = {
        field.name: _through_json(numbers.get(field.name, getattr(Recipe(), field.name))) for field in fields(Recipe)
    }
    differing = [name for name in now if name != "epochs" and then[name] != now[name]]  # the key has the epochs
    return ", ".join(f"{name} {then[name]}, not {now[name]}" for name in differing)


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
