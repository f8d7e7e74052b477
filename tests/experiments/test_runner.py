"""An experiment is planned completely or refused, and a stored run is not done again."""

import pyarrow as pa
import pytest
from builders.experiments import ARTISTS, LANGUAGE_OF, SEGMENTS, SONGS, make_result, make_run

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import InputError, RunError
from mtl_core.experiments import runner
from mtl_core.experiments.run_store import VARIANTS, stored_runs
from mtl_core.model.recipes import recipe
from mtl_core.storage.location import Location


def make_mels(songs=SONGS, **labels):
    """Four artists in two languages."""
    names = [(artist, song) for artist in ARTISTS for song in range(songs)]
    columns = {
        "track_id": [f"{artist}/{song}" for artist, song in names],
        "segments": [SEGMENTS] * len(names),
        "artist": pa.array([artist for artist, _ in names], pa.string()),
        "language": pa.array([LANGUAGE_OF[artist] for artist, _ in names], pa.string()),
        "album": pa.array([None] * len(names), pa.string()),
    }
    return MelDataset(files=(), front_end=FrontEnd(), tracks=pa.table(columns | labels), spans=pa.table({}))


def test_a_stored_run_is_not_done_again_and_a_failed_run_does_not_stop_the_others(tmp_path, capsys):
    out, done = Location(str(tmp_path / "out")), []

    def train_run(run):
        done.append(run.key)
        if run.tasks == "language" and len(done) < 4:
            raise RunError("a worker\nfailed")
        return make_result(run)

    runs = [make_run(tasks) for tasks in VARIANTS]
    assert runner.run_missing(runs, out, train_run) == [make_run("language").key]
    assert "failed: a worker failed\n" in capsys.readouterr().err
    assert runner.run_missing([*runs, make_run("both", seed=1)], out, train_run) == []
    assert done == [run.key for run in [*runs, make_run("language"), make_run("both", seed=1)]]
    assert len(stored_runs(out)) == 4


def plan(**options):
    mels = options.pop("mels", None) or make_mels()
    return runner.plan_runs(mels, runner.ExperimentOptions(**({"folds": [0], "seeds": [0]} | options)))


def test_all_models_of_a_seed_and_fold_come_together_and_every_key_is_different():
    runs = plan(recipes=["demo", "paper"], seeds=[0, 1], folds=[0, 3])
    assert len({run.key for run in runs}) == len(runs) == 28
    assert {(run.seed, run.fold) for run in runs[:7]} == {(0, 0)}
    assert [(run.recipe, run.tasks, run.epochs) for run in runs[:4]] == [
        ("linear", "both", 0),
        *(("demo", tasks, recipe("demo").epochs) for tasks in (*TASKS, "both")),
    ]
    assert {run.epochs for run in runs[4:7]} == {100}


def test_the_linear_baseline_has_the_tasks_that_are_trained():
    assert [(run.recipe, run.tasks) for run in plan(tasks=["language"])] == [
        ("linear", "language"),
        ("paper", "language"),
    ]


def test_each_alpha_is_one_more_model_of_both_tasks():
    default, more = plan(seeds=[0, 1]), plan(seeds=[0, 1], alphas=[0.0, 2.0])
    assert [run for run in more if run.alpha is None] == default
    assert [(run.tasks, run.alpha) for run in more[4:6]] == [("both", 0.0), ("both", 2.0)]
    assert len({run.key for run in more}) == len(more) == 12


@pytest.mark.parametrize(
    ("options", "message"),
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
        ({"alphas": [1.0], "tasks": ["artist"]}, "alphas are only for the model of both tasks, got --tasks artist"),
        ({"num_workers": 3}, "num-workers must divide the global batch of 32, got 3"),
        ({"mels": make_mels(artist=pa.array([None] * 20, pa.string()))}, "has a label for 'artist'"),
        ({"mels": make_mels(songs=1)}, "no artist has two groups"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        plan(**options)
