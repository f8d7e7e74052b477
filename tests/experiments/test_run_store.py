"""What is stored is what is loaded, and it is checked against what is asked for."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import InputError
from mtl_core.evaluation.predictions import Predictions
from mtl_core.experiments import run_store
from mtl_core.experiments.run_store import Run, RunResult
from mtl_core.inference.aggregation import Aggregation
from mtl_core.storage.location import Location

ARTISTS = ("a0", "a1", "b0", "b1")
LANGUAGE = {"a0": "a", "a1": "a", "b0": "b", "b1": "b"}
SONGS, SEGMENTS = 5, 3


def run(tasks="both", *, fold=0, seed=0, name="paper", epochs=2, alpha=None):
    return Run(
        recipe=name, tasks=tasks, split="kfold", fold=fold, group_column=None, seed=seed, epochs=epochs, alpha=alpha
    )


def result(of=None, *, skill=1.0, noise=1.0, draw=0):
    """Logits of fold `of.fold`, a song of each artist: noise, and `skill` more for what is true."""
    of = of or run()
    random = np.random.default_rng((draw, of.fold, of.seed))
    vocabularies = {"artist": Vocabulary(ARTISTS), "language": Vocabulary(("a", "b"))}
    tracks = pa.table(
        {
            "track_id": [f"{artist}/{of.fold}" for artist in ARTISTS],
            "artist": list(ARTISTS),
            "language": [LANGUAGE[artist] for artist in ARTISTS],
        }
    )
    logits = {}
    for task, vocabulary in vocabularies.items():
        drawn = noise * random.standard_normal((len(ARTISTS), SEGMENTS, len(vocabulary)))
        drawn[np.arange(len(ARTISTS)), :, vocabulary.encode(tracks[task].to_pylist())] += skill
        logits[task] = list(drawn.astype(np.float32))
    return RunResult(
        run=of,
        fingerprint="f",
        recipe={"name": of.recipe, "alpha": of.alpha},
        heard=Predictions(
            tracks=tracks,
            logits={task: logits[task] for task in of.of_tasks},
            vocabularies={task: vocabularies[task] for task in of.of_tasks},
            aggregation=Aggregation(temperature={"artist": 2.0}),
        ),
        priors={task: [1 / len(vocabularies[task])] * len(vocabularies[task]) for task in of.of_tasks},
        language_of=LANGUAGE,
        metrics={"history": []},
    )


def same(a, b):
    plain = [replace(x, heard=None) for x in (a, b)]
    heard = [x.heard for x in (a, b)]
    return (
        plain[0] == plain[1]
        and heard[0].tracks.equals(heard[1].tracks)
        and heard[0].aggregation == heard[1].aggregation
        and heard[0].vocabularies == heard[1].vocabularies
        and all(
            np.array_equal(x, y)
            for task in heard[0].logits
            for x, y in zip(heard[0].logits[task], heard[1].logits[task], strict=True)
        )
    )


@pytest.mark.parametrize("tasks", run_store.VARIANTS)
def test_what_is_stored_is_what_is_loaded(root, tasks):
    out, found = Location(root), result(run(tasks))
    run_store.save_run(found, out)
    assert run_store.stored_runs(out) == [found.run.key]
    assert same(run_store.load_run(found.run.key, out), found)


def test_a_run_whose_storing_was_cut_off_is_open(tmp_path):
    out = Location(str(tmp_path))
    run_store.save_run(result(), out)
    (out / run_store.RUNS / run().key / run_store.RUN).delete()
    assert run_store.stored_runs(out) == []


def test_a_run_that_was_stored_before_there_were_other_alphas_is_loaded(tmp_path):
    out, found = Location(str(tmp_path)), result()
    run_store.save_run(found, out)
    place = out / run_store.RUNS / "paper-both-kfold-fold-0-seed-0-epochs-2" / run_store.RUN
    values = json.loads(place.read_bytes())
    del values["run"]["alpha"]
    place.write_bytes(json.dumps(values).encode())
    assert same(run_store.load_run(found.run.key, out), found)


def test_runs_of_another_alpha_have_a_key_of_their_own():
    keys = [run(alpha=alpha).key for alpha in (None, 0.0, 1.0, 0.25, 4.0)]
    assert keys[1:] == [f"{keys[0]}-alpha-{said}" for said in ("0", "1", "0.25", "4")]
    found = result(run(alpha=1.0))
    run_store.check_same([replace(found, recipe={"alpha": 1.0})], "f", Location("nowhere"))
    with pytest.raises(InputError, match=r"had alpha 2\.0, not 1\.0"):
        run_store.check_same([replace(found, recipe={"alpha": 2.0})], "f", Location("nowhere"))


def test_damaged_runs_are_named(tmp_path):
    out = Location(str(tmp_path))
    run_store.save_run(result(), out)
    (out / run_store.RUNS / run().key / run_store.LOGITS).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"{run().key} is no stored run"):
        run_store.load_run(run().key, out)


def test_runs_of_other_mels_or_of_a_recipe_that_has_changed_are_refused(tmp_path):
    out, found = Location(str(tmp_path)), result()
    run_store.check_same([found], "f", out)
    with pytest.raises(InputError, match="is of other mels"):
        run_store.check_same([found], "g", out)
    other = replace(found, recipe={"learning_rate": 0.5})
    with pytest.raises(InputError, match=r"the recipe 'paper' had learning_rate 0\.5, not 0\.001"):
        run_store.check_same([other], "f", out)
    gone = replace(other, run=run(name="tried once"))
    run_store.check_same([gone], "f", out)
