"""Experiments are planned whole or refused; what is stored is never done twice."""

import pyarrow as pa
import pytest
from test_run_store import ARTISTS, LANGUAGE, SEGMENTS, SONGS, result, run

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_files import MelDataset
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError, RunError
from mtl_core.experiments import runner
from mtl_core.experiments.run_store import VARIANTS, stored_runs
from mtl_core.model.recipes import recipe
from mtl_core.storage.location import Location


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
    return MelDataset(files=(), front_end=FrontEnd(), tracks=pa.table(columns | labels), spans=pa.table({}))


def test_a_stored_run_is_not_done_again_and_a_failing_one_stops_no_other(tmp_path, capsys):
    out, done = Location(str(tmp_path / "out")), []

    def work(of):
        done.append(of.key)
        if of.tasks == "language" and len(done) < 4:
            raise RunError("a worker\nfailed")
        return result(of)

    runs = [run(tasks) for tasks in VARIANTS]
    assert runner.run_missing(runs, out, work) == [run("language").key]
    assert "failed: a worker failed\n" in capsys.readouterr().err
    assert runner.run_missing([*runs, run("both", seed=1)], out, work) == []
    assert done == [run(tasks).key for tasks in VARIANTS] + [run("language").key, run("both", seed=1).key]
    assert len(stored_runs(out)) == 4


def plan(**given):
    asked = {
        "recipes": ["paper"],
        "tasks": VARIANTS,
        "split": "kfold",
        "folds": [0],
        "group_column": None,
        "seeds": [0],
        "epochs": None,
        "num_workers": 1,
    } | given
    return runner.plan_runs(asked.pop("mels", mels()), **asked)


def test_all_models_of_a_cell_come_first_and_keys_tell_them_apart():
    runs = plan(recipes=["demo", "paper"], seeds=[0, 1], folds=[0, 3])
    assert len({of.key for of in runs}) == len(runs) == 24
    assert {(of.seed, of.fold) for of in runs[:6]} == {(0, 0)}
    assert {of.epochs for of in runs} == {recipe("demo").epochs, 100}
    assert [of.tasks for of in runs[:3]] == [*TASKS, "both"]


def test_each_alpha_is_one_more_model_of_both_tasks():
    plain, more = plan(seeds=[0, 1]), plan(seeds=[0, 1], alphas=[0.0, 2.0])
    assert [of for of in more if of.alpha is None] == plain
    assert [(of.tasks, of.alpha) for of in more[3:5]] == [("both", 0.0), ("both", 2.0)]
    assert len({of.key for of in more}) == len(more) == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipes": ["papier"]}, "no recipe 'papier'"),
        ({"recipes": []}, "recipes must be one or more, each once, got none"),
        ({"seeds": [0, 0]}, "seeds must be one or more, each once, got 0 0"),
        ({"seeds": [-1]}, "seed must be 0 to"),
        ({"tasks": ["mood"]}, "tasks must be of artist, language, both, got mood"),
        ({"split": "random"}, "no split 'random'"),
        ({"split": "artist"}, "--tasks language"),
        ({"split": "paper", "folds": [1]}, "fold 1 needs the split 'kfold', got 'paper'"),
        ({"folds": [9]}, "no fold 9: allowed are 0 to 4"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"alphas": [-1.0]}, "alpha must be None, or >= 0 and finite, got -1.0"),
        ({"alphas": [float("inf")]}, "got inf"),
        ({"alphas": [1.0, 1.0]}, "alphas must be one or more, each once, got 1.0 1.0"),
        ({"alphas": [1.0], "tasks": ["artist"]}, "alphas are of the model of both tasks alone, got --tasks artist"),
        ({"num_workers": 3}, "num-workers must divide the global batch of 32, got 3"),
        ({"mels": mels(artist=pa.array([None] * 20, pa.string()))}, "has a label for 'artist'"),
        ({"mels": mels(songs=1)}, "no artist has two units"),
    ],
)
def test_what_cannot_be_planned_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        plan(**given)
