"""Classes are added, removed and renamed; the others stay as they are to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from builders.models import save, untrained_artifact, with_class_means

from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.enrolment import enrol, remove, rename
from mtl_core.model.cosine_lda import SCALE
from mtl_core.schema import OUT_OF_FOLD
from mtl_core.storage.location import Location


@pytest.fixture
def model() -> artifacts.Artifact:
    return with_class_means()


def embeddings(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=(n, 96)).astype(np.float32) / 10


def test_a_new_class_is_the_direction_of_its_tracks(model, tmp_path):
    rng = np.random.default_rng(0)
    tracks = {"cc": embeddings(rng, 3), "z": embeddings(rng, 1)}
    rows = OUT_OF_FOLD.empty_table()
    changed = enrol(replace(model, out_of_fold=rows), "artist", tracks)
    assert changed.vocabularies["artist"].labels == ("a", "b", "c", "cc", "d", "e", "f", "g", "z")
    before, after = (of.heads["artist"].weight_CE for of in (model, changed))
    np.testing.assert_array_equal(after[[0, 1, 2, 4, 5, 6, 7]], before)
    mean_P = tracks["cc"][:, :80].mean(0)
    np.testing.assert_allclose(after[3, :80], SCALE * mean_P / np.linalg.norm(mean_P), rtol=1e-5)
    assert not after[3, 80:].any()
    np.testing.assert_array_equal(changed.heads["language"].weight_CE, model.heads["language"].weight_CE)
    assert artifacts.trunk_id(changed) == artifacts.trunk_id(model)
    assert artifacts.model_id(changed) != artifacts.model_id(model)
    loaded = artifacts.load_artifact(save(changed, Location(str(tmp_path))))
    assert artifacts.model_id(loaded) == artifacts.model_id(changed)
    assert loaded.out_of_fold is None, "the gate would compare the old model with itself"
    card = (tmp_path / "README.md").read_text()
    assert "cc (3 tracks), z (1 track)" in card and "those of the classes before" in card


def test_classes_are_removed_and_renamed(model):
    changed = rename(remove(model, "artist", ["b", "d"]), "artist", "a", "x")
    assert changed.vocabularies["artist"].labels == ("c", "e", "f", "g", "x")
    np.testing.assert_array_equal(changed.heads["artist"].weight_CE, model.heads["artist"].weight_CE[[2, 4, 5, 6, 0]])
    seen = embeddings(np.random.default_rng(0), 5)
    assert enrol(remove(changed, "artist", ["x"]), "artist", {"x": seen}).metrics["changed"] == [
        {"task": "artist", "removed": ["b", "d"]},
        {"task": "artist", "renamed": {"a": "x"}},
        {"task": "artist", "removed": ["x"]},
        {"task": "artist", "enrolled": {"x": 5}},
    ]


def test_what_is_not_possible_is_refused(model):
    seen = embeddings(np.random.default_rng(0), 1)
    for change, message in (
        (lambda: enrol(model, "artist", {"a": seen, "new": seen}), "knows the artist 'a' already"),
        (lambda: remove(model, "artist", ["new"]), "does not know the artist 'new'"),
        (lambda: remove(model, "language", ["de", "en", "fr"]), "no language left"),
        (lambda: rename(model, "artist", "a", "b"), "cannot be renamed to 'b'"),
        (lambda: enrol(untrained_artifact(), "artist", {"new": seen}), "no class means"),
        (lambda: enrol(model, "mood", {"new": seen}), "no head for mood"),
        (lambda: enrol(model, "artist", {"new": np.zeros((2, 96), np.float32)}), "'new' has no direction"),
    ):
        with pytest.raises(InputError, match=message):
            change()
