"""Runs of an experiment with known skill: four artists in two languages, a song of each artist in every fold."""

import numpy as np
import pyarrow as pa

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.experiments.run_store import VARIANTS, Run, RunResult
from mtl_core.experiments.segment_logits import SegmentLogits
from mtl_core.inference.tagging.aggregation import Aggregation

ARTISTS = ("a0", "a1", "b0", "b1")
LANGUAGE_OF = {"a0": "a", "a1": "a", "b0": "b", "b1": "b"}
SONGS, SEGMENTS = 5, 3


def make_run(tasks="both", *, fold=0, seed=0, recipe="paper", epochs=2, alpha=None):
    return Run(
        recipe=recipe, tasks=tasks, split="kfold", fold=fold, group_column=None, seed=seed, epochs=epochs, alpha=alpha
    )


def make_result(run=None, *, skill=1.0, noise=1.0, draw=0):
    """The result of a run. Its logits are noise, plus `skill` for the true label; another `draw` is other noise."""
    run = run or make_run()
    rng = np.random.default_rng((draw, run.fold, run.seed))
    vocabularies = {"artist": Vocabulary(ARTISTS), "language": Vocabulary(("a", "b"))}
    tracks = pa.table(
        {
            "track_id": [f"{artist}/{run.fold}" for artist in ARTISTS],
            "artist": list(ARTISTS),
            "language": [LANGUAGE_OF[artist] for artist in ARTISTS],
        }
    )
    logits = {}
    for task, vocabulary in vocabularies.items():
        values = noise * rng.standard_normal((len(ARTISTS), SEGMENTS, len(vocabulary)))
        values[np.arange(len(ARTISTS)), :, vocabulary.encode(tracks[task].to_pylist())] += skill
        logits[task] = list(values.astype(np.float32))
    return RunResult(
        run=run,
        fingerprint="f",
        recipe={"name": run.recipe, "alpha": run.alpha},
        predictions=SegmentLogits(
            tracks=tracks,
            logits={task: logits[task] for task in run.model_tasks},
            vocabularies={task: vocabularies[task] for task in run.model_tasks},
            aggregation=Aggregation(temperature={"artist": 2.0}),
        ),
        priors={task: [1 / len(vocabularies[task])] * len(vocabularies[task]) for task in run.model_tasks},
        language_of=LANGUAGE_OF,
        metrics={"history": []},
    )


def make_results(*, seeds=(0, 1), gain=0.0, noise=1.0, recipe="paper", variants=VARIANTS, draw=0, alpha=None):
    """Every fold of every seed. The logits of the multi-task model are `gain` higher for the true label."""
    return [
        make_result(
            make_run(tasks, fold=fold, seed=seed, recipe=recipe, alpha=alpha),
            skill=1 + gain * (tasks == "both"),
            noise=noise,
            draw=draw,
        )
        for seed in seeds
        for fold in range(SONGS)
        for tasks in variants
    ]
