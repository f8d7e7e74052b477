"""Run store: the trainings (runs) of an experiment, as they lie in its folder.

    OUT/runs/KEY/logits.parquet   the test tracks, a row a segment: track_id, artist, language (true labels) and, for
                                  each task of the model, its logits: list<float32> in the order of the vocabulary
    OUT/runs/KEY/run.json         everything else of a `RunResult`; written last, so a run is stored once this exists
    OUT/models/KEY                the artifact

A run's key contains all that distinguishes it from the other runs of the experiment. The mels and the numbers of the
recipe are not in the key: they must be the same for all runs of an experiment, and `check_same` checks them.
Legend: S segments, C classes.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import InputError, one_line
from mtl_core.evaluation.baselines import artist_languages, class_prior
from mtl_core.experiments.segment_logits import SegmentLogits
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.segment_grouping import group_by_track
from mtl_core.model.recipes import Recipe, recipe
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes

BOTH = "both"
VARIANTS = (*TASKS, BOTH)
LINEAR = "linear"  # what the runs of the linear baseline have as their recipe
RUNS_PATH, MODELS_PATH, LOGITS_FILE, RUN_FILE = "runs", "models", "logits.parquet", "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of an experiment. `split`, `fold` and `group_column` are arguments of `splits.split`."""

    recipe: str
    tasks: str  # one of `VARIANTS`
    split: str
    fold: int  # 0 unless the split is `kfold`
    group_column: str | None
    seed: int  # of the split and of the training
    epochs: int  # >= 1; 0 of the linear baseline
    alpha: float | None = None  # weight of the language loss of a model of both tasks, >= 0; None: the recipe's own

    @property
    def key(self) -> str:
        """The name of the run's folder."""
        fold = f"-fold-{self.fold}" if self.split == "kfold" else ""
        by = f"-by-{self.group_column}" if self.group_column else ""
        weight = "" if self.alpha is None else f"-alpha-{self.alpha:.12g}"
        return f"{self.recipe}-{self.tasks}-{self.split}{by}{fold}-seed-{self.seed}-epochs-{self.epochs}{weight}"

    @property
    def model_tasks(self) -> tuple[str, ...]:
        """The tasks of the model."""
        return TASKS if self.tasks == BOTH else (self.tasks,)

    @property
    def variant(self) -> str:
        """The model among those of the same recipe, epochs, seed and fold: one of `VARIANTS`, or its own alpha."""
        return self.tasks if self.alpha is None else f"alpha {self.alpha!r}"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run."""

    run: Run
    fingerprint: str  # of the mels
    recipe: dict[str, Any]  # every number of the recipe; JSON values
    predictions: SegmentLogits  # for the test tracks
    priors: dict[str, list[float]]  # task -> (C,) share of each class among the training tracks
    language_of: dict[str, str]  # artist -> its language among the training tracks
    metrics: dict[str, Any]  # of the artifact: split, history, best epoch, counts; JSON values

    @property
    def alpha(self) -> float | None:
        """The weight of the language loss in this training; None for a model of one task."""
        n_classes = {task: len(vocabulary) for task, vocabulary in self.predictions.vocabularies.items()}
        if self.run.recipe == LINEAR or set(n_classes) != set(TASKS):
            return None
        alpha = self.recipe.get("alpha")
        return n_classes["artist"] / n_classes["language"] if alpha is None else float(alpha)


def run_result(run: Run, artifact: Artifact, predictions: SegmentLogits, training: pa.Table) -> RunResult:
    """The result of a run, from its artifact, its predictions for the test tracks, and its training tracks."""
    return RunResult(
        run=run,
        fingerprint=artifact.fingerprint,
        recipe=artifact.recipe,
        predictions=predictions,
        priors=class_priors(predictions.vocabularies, training),
        language_of=artist_languages([training]),
        metrics=artifact.metrics,
    )


def class_priors(vocabularies: Mapping[str, Vocabulary], training: pa.Table) -> dict[str, list[float]]:
    """task -> (C,) share of each class among the training tracks."""
    return {
        task: class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary)).tolist()
        for task, vocabulary in vocabularies.items()
    }


def stored_runs(out: Location) -> list[str]:
    """Keys of the runs that are stored under `out`, sorted."""
    with as_input_error(out):
        if not (out / RUNS_PATH).exists():
            return []
        paths = [path for path, _ in (out / RUNS_PATH).walk()]
    return sorted(path.removesuffix(f"/{RUN_FILE}") for path in paths if path.endswith(f"/{RUN_FILE}"))


def save_run(result: RunResult, out: Location) -> None:
    """Store a run under `out`."""
    predictions, folder = result.predictions, out / RUNS_PATH / result.run.key
    columns = {}
    for name in ("track_id", *TASKS):
        track_values = np.array(predictions.tracks[name].to_pylist(), object)
        columns[name] = pa.array(np.repeat(track_values, predictions.n_segments), pa.string())
    for task in predictions.vocabularies:
        logits_SC = np.concatenate(predictions.logits[task]).astype(np.float32)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(logits_SC.ravel()), logits_SC.shape[1])
        columns[f"{task}_logits"] = rows.cast(pa.list_(pa.float32()))
    values = {
        "run": asdict(result.run),
        "fingerprint": result.fingerprint,
        "recipe": result.recipe,
        "vocabularies": {task: list(vocabulary.labels) for task, vocabulary in predictions.vocabularies.items()},
        "aggregation": predictions.aggregation.to_dict(),
        "priors": result.priors,
        "language_of": result.language_of,
        "metrics": result.metrics,
    }
    with as_input_error(out):
        (folder / LOGITS_FILE).write_bytes(to_bytes(pa.table(columns), compression="zstd"))
        (folder / RUN_FILE).write_json(values, allow_nan=True)  # the losses of an epoch that diverged are NaN


def load_run(key: str, out: Location) -> RunResult:
    """Load a stored run.

    Raises:
        InputError: a file of the run is damaged.
    """
    folder = out / RUNS_PATH / key
    with as_input_error(folder):
        try:
            values = json.loads((folder / RUN_FILE).read_bytes())
            segments = pq.read_table(io.BytesIO((folder / LOGITS_FILE).read_bytes()))
            return RunResult(
                run=Run(**values["run"]),
                fingerprint=values["fingerprint"],
                recipe=values["recipe"],
                predictions=_predictions(segments, values["vocabularies"], values["aggregation"]),
                priors=values["priors"],
                language_of=values["language_of"],
                metrics=values["metrics"],
            )
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise InputError(f"{folder} is not a stored run: {one_line(error)}: delete it") from None


def _predictions(segments: pa.Table, labels: dict[str, list[str]], aggregation: dict[str, Any]) -> SegmentLogits:
    vocabularies = {task: Vocabulary(tuple(task_labels)) for task, task_labels in labels.items()}
    track_S = segments["track_id"].to_numpy()
    track_ids, first_rows = np.unique(track_S, return_index=True)
    order = np.argsort(first_rows)
    logits = {
        task: segments[f"{task}_logits"].combine_chunks().flatten().to_numpy().reshape(-1, len(vocabulary))
        for task, vocabulary in vocabularies.items()
    }
    return SegmentLogits(
        tracks=segments.select(["track_id", *TASKS]).take(first_rows[order]),
        logits=group_by_track(track_ids[order], track_S, logits),
        vocabularies=vocabularies,
        aggregation=Aggregation(**aggregation),
    )


def check_same(results: Iterable[RunResult], fingerprint: str, out: Location) -> None:
    """Check that stored runs were trained on these mels and with today's numbers of their recipes.

    Raises:
        InputError: one was not.
    """
    for result in results:
        folder = out / RUNS_PATH / result.run.key
        if result.fingerprint != fingerprint:
            raise InputError(f"{folder} is of other mels (data, labels or front end): choose another --out")
        differences = recipe_differences(result.recipe, result.run)
        if differences:
            raise InputError(
                f"{folder} was trained when the recipe {result.run.recipe!r} had {differences}: give the new recipe "
                f"another name, or delete the run and its model"
            )


def recipe_differences(numbers: dict[str, Any], run: Run) -> str:
    """The differences between the numbers of a stored recipe and today's, in words; "" without any.

    A number that recipes did not have at the time counts as its default. A recipe that no longer exists has no
    differences.
    """
    try:
        today = recipe(run.recipe, epochs=run.epochs, alpha=run.alpha)
    except InputError:
        return ""
    now = _through_json(asdict(today))
    then = {
        field.name: _through_json(numbers.get(field.name, getattr(Recipe(), field.name))) for field in fields(Recipe)
    }
    names = [name for name in now if name != "epochs" and then[name] != now[name]]  # epochs are in the key
    return ", ".join(f"{name} {then[name]}, not {now[name]}" for name in names)


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
