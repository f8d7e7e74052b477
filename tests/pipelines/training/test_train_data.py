"""Which tracks train which model of a command."""

import pyarrow as pa
import pytest
from builders.small_mels import ARTISTS, SONGS, write_mels, write_tracks

from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.errors import InputError
from mtl_core.pipelines.training.train_data import split_models

DEFAULTS = {"tasks": ("artist", "language"), "seed": 0, "fold": 0, "folds": 3, "group_column": None}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_mel_dataset(write_mels(tmp_path_factory.mktemp("mels")))


def models_of(source, kind, *, with_validation=False, **options):
    return split_models(source, kind=kind, with_validation=with_validation, **{**DEFAULTS, **options})


def ids(model, part):
    return set(model.tracks[part]["track_id"].to_pylist())


def test_crossfit_scores_each_song_as_unknown_once_and_trains_a_final_model_on_all(source):
    models, splits = models_of(source, "crossfit")
    assert [model.name for model in models] == ["fold-0", "fold-1", "fold-2", "final"]
    *folds, final = models
    assert ids(final, "train") == set(splits["track_id"].to_pylist())
    assert not ids(final, "held_out")
    unknown = [
        track
        for model in folds
        for track in model.tracks["held_out"].filter(pa.array(~model.known_N))["track_id"].to_pylist()
    ]
    assert len(unknown) == len(set(unknown)) == ARTISTS * SONGS
    for model in folds:
        assert not ids(model, "train") & ids(model, "held_out")
        assert "None-0" in ids(model, "train")
        known_artists = set(model.vocabularies["artist"].labels)
        for row, known in zip(model.tracks["held_out"].to_pylist(), model.known_N, strict=True):
            assert (row["artist"] in known_artists) == known


def test_none_trains_one_model_on_everything(source):
    (model,), splits = models_of(source, "none")
    assert ids(model, "train") == set(splits["track_id"].to_pylist())
    assert set(splits["split"].to_pylist()) == {"train"}


def test_the_validation_part_trains_where_it_does_not_choose_the_epoch(source):
    (chosen,), splits = models_of(source, "kfold", with_validation=True)
    assert ids(chosen, "validation") == ids(chosen, "held_out") != set()
    (last,), other_splits = models_of(source, "kfold", with_validation=False)
    assert ids(last, "train") == ids(chosen, "train") | ids(chosen, "validation")
    assert not ids(last, "validation")
    tests = [
        {row["track_id"] for row in table.to_pylist() if row["split"] == "test"} for table in (splits, other_splits)
    ]
    assert tests[0] == tests[1] != set()


def test_an_instrumental_is_in_no_language(tmp_path):
    tracks = [(f"a{a}", "zxx" if song == 0 else "l", f"a{a}-{song}") for a in range(3) for song in range(3)]
    source = open_mel_dataset(write_tracks(tmp_path / "mels", tracks))
    models, _ = models_of(source, "crossfit")
    for model in models:
        assert model.vocabularies["language"].labels == ("l",)


def test_too_few_artists(tmp_path):
    source = open_mel_dataset(write_tracks(tmp_path / "mels", [("a0", "l", f"a0-{song}") for song in range(4)]))
    with pytest.raises(InputError, match="needs two artists or more, got 1"):
        models_of(source, "crossfit")
