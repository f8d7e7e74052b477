"""Runs are stored as they end, never done twice, and what is stored is checked against what is asked for."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mtl_core import experiment
from mtl_core.aggregate import Aggregation
from mtl_core.evaluation import Heard
from mtl_core.experiment import Result, Run
from mtl_core.failures import InputError, RunError
from mtl_core.features import FrontEnd
from mtl_core.labels import TASKS, Vocabulary
from mtl_core.mels import Mels
from mtl_core.recipes import recipe
from mtl_core.storage import Location

ARTISTS = ("a0", "a1", "b0", "b1")
LANGUAGE = {"a0": "a", "a1": "a", "b0": "b", "b1": "b"}
SONGS, SEGMENTS = 5, 3


def mels(songs=SONGS, **labels):
    """Four artists in two languages."""
    names = [(artist, song) for artist in ARTISTS for song in range(songs)]
    columns = {
        "track_id": [f"{artist}/{song}" for artist, song in names],
        "segments": [SEGMENTS] * len(names),
        "artist": pa.array([artist for artist, _ in names], pa.string()),
        "language": pa.array([LANGUAGE[artist] for artist, _ in names], pa.string()),
        "album": pa.array([None] * len(names), pa.string()),
    }
    return Mels(files=(), front_end=FrontEnd(), tracks=pa.table(columns | labels))


def run(tasks="both", *, fold=0, seed=0, name="paper", epochs=2):
    return Run(recipe=name, tasks=tasks, split="kfold", fold=fold, group_column=None, seed=seed, epochs=epochs)


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
    return Result(
        run=of,
        fingerprint="f",
        recipe={"name": of.recipe, "alpha": None},
        heard=Heard(
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


@pytest.mark.parametrize("tasks", experiment.VARIANTS)
def test_what_is_stored_is_what_is_loaded(root, tasks):
    out, found = Location(root), result(run(tasks))
    experiment.save(found, out)
    assert experiment.stored(out) == [found.run.key]
    assert same(experiment.load(found.run.key, out), found)


def test_a_stored_run_is_not_done_again_and_a_failing_one_stops_no_other(tmp_path, capsys):
    out, done = Location(str(tmp_path / "out")), []

    def work(of):
        done.append(of.key)
        if of.tasks == "language" and len(done) < 4:
            raise RunError("a worker\nfailed")
        return result(of)

    runs = [run(tasks) for tasks in experiment.VARIANTS]
    assert experiment.complete(runs, out, work) == [run("language").key]
    assert "failed: a worker failed\n" in capsys.readouterr().err
    assert experiment.complete([*runs, run("both", seed=1)], out, work) == []
    assert done == [run(tasks).key for tasks in experiment.VARIANTS] + [run("language").key, run("both", seed=1).key]
    assert len(experiment.stored(out)) == 4


def test_a_run_whose_storing_was_cut_off_is_open(tmp_path):
    out = Location(str(tmp_path))
    experiment.save(result(), out)
    (out / experiment.RUNS / run().key / experiment.RUN).delete()
    assert experiment.stored(out) == []


def test_damaged_runs_are_named(tmp_path):
    out = Location(str(tmp_path))
    experiment.save(result(), out)
    (out / experiment.RUNS / run().key / experiment.LOGITS).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"{run().key} is no stored run"):
        experiment.load(run().key, out)


def test_runs_of_other_mels_or_of_a_recipe_that_has_changed_are_refused(tmp_path):
    out, found = Location(str(tmp_path)), result()
    experiment.check_same([found], "f", out)
    with pytest.raises(InputError, match="is of other mels"):
        experiment.check_same([found], "g", out)
    other = replace(found, recipe={"learning_rate": 0.5})
    with pytest.raises(InputError, match=r"the recipe 'paper' had learning_rate 0\.5, not 0\.001"):
        experiment.check_same([other], "f", out)
    gone = replace(other, run=run(name="tried once"))
    experiment.check_same([gone], "f", out)


def plan(**given):
    asked = {
        "recipes": ["paper"],
        "tasks": experiment.VARIANTS,
        "split": "kfold",
        "folds": [0],
        "group_column": None,
        "seeds": [0],
        "epochs": None,
        "num_workers": 1,
    } | given
    return experiment.plan(asked.pop("mels", mels()), **asked)


def test_all_models_of_a_cell_come_first_and_keys_tell_them_apart():
    runs = plan(recipes=["demo", "paper"], seeds=[0, 1], folds=[0, 3])
    assert len({of.key for of in runs}) == len(runs) == 24
    assert {(of.seed, of.fold) for of in runs[:6]} == {(0, 0)}
    assert {of.epochs for of in runs} == {recipe("demo").epochs, 100}
    assert [of.tasks for of in runs[:3]] == [*TASKS, "both"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipes": ["papier"]}, "no recipe 'papier'"),
        ({"recipes": []}, "recipes must be one or more, each once, got none"),
        ({"seeds": [0, 0]}, "seeds must be one or more, each once, got 0 0"),
        ({"seeds": [-1]}, "seeds must be 0 to"),
        ({"tasks": ["mood"]}, "tasks must be of artist, language, both, got mood"),
        ({"split": "random"}, "no split 'random'"),
        ({"split": "artist"}, "--tasks language"),
        ({"split": "paper", "folds": [1]}, "folds are of the split 'kfold' alone"),
        ({"folds": [9]}, "no fold 9: allowed are 0 to 4"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"num_workers": 3}, "num-workers must divide the global batch of 32 of paper, got 3"),
        ({"mels": mels(artist=pa.array([None] * 20, pa.string()))}, "has a label for 'artist'"),
        ({"mels": mels(songs=1)}, "no artist has two units"),
    ],
)
def test_what_cannot_be_planned_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        plan(**given)
