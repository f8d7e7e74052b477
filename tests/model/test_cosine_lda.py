"""Heads in closed form: what they are invariant to, and that they separate classes as scikit-learn's LDA does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.moments import moments
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.class_geometry import _ledoit_wolf_shrinkage
from mtl_core.model.cnn import BANDS, EMBEDDING, FRAMES, ModelConfig, MultitaskCNN, drop_head, with_cosine_heads
from mtl_core.model.cosine_lda import fit_cosine_lda

CLASSES = {"artist": 6, "language": 2}


def songs(seed=0, per_class=20, segments=5, values=12):
    """Segments of songs of 6 artists in 2 languages: (N, S, D), and the targets of the songs."""
    rng = np.random.default_rng(seed)
    mix_DD = np.random.default_rng(9).normal(size=(values, values))  # correlated values of different scales
    centre_CD = np.random.default_rng(8).normal(size=(6, values))
    artist_N = np.repeat(np.arange(6), per_class)
    song_ND = centre_CD[artist_N] + 0.7 * rng.normal(size=(len(artist_N), values))
    x_NSD = song_ND[:, None] + rng.normal(size=(len(artist_N), segments, values))
    return x_NSD @ mix_DD, {"artist": artist_N, "language": artist_N // 3}


def tag(part, x_NSD):
    """The class of each song by its mean unit vector."""
    y_NSP = x_NSD @ part.weight_PD.T + part.bias_P
    unit_NSP = y_NSP / np.linalg.norm(y_NSP, axis=-1, keepdims=True)
    return (unit_NSP.mean(1) @ part.classes_CP.T).argmax(1)


def test_it_names_new_songs_as_well_as_a_discriminant_analysis():
    x_NSD, targets = songs()
    new_NSD, new_targets = songs(seed=1)
    parts = fit_cosine_lda(moments(x_NSD), targets, CLASSES, 12).parts
    for task, targets_N in targets.items():
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x_NSD.mean(1), targets_N)
        ours = (tag(parts[task], new_NSD) == new_targets[task]).mean()
        assert ours > lda.score(new_NSD.mean(1), new_targets[task]) - 0.05
        assert ours > 0.8


def test_the_scale_and_the_origin_of_a_value_do_not_matter():
    x_NSD, targets = songs()
    other_NSD = x_NSD * np.geomspace(1e-3, 1e3, 12) + 50 * np.geomspace(1e-3, 1e3, 12)
    one, other = (fit_cosine_lda(moments(x), targets, CLASSES, 12).parts for x in (x_NSD, other_NSD))
    new_NSD, _ = songs(seed=1)
    changed_NSD = new_NSD * np.geomspace(1e-3, 1e3, 12) + 50 * np.geomspace(1e-3, 1e3, 12)
    for task in CLASSES:
        assert (tag(one[task], new_NSD) == tag(other[task], changed_NSD)).all()


def test_the_segments_within_a_class_are_nearly_white():
    x_NSD, targets = songs(per_class=2000)
    part = fit_cosine_lda(moments(x_NSD), targets, {"artist": 6}, 12).parts["artist"]
    y_NSP = x_NSD @ part.weight_PD.T + part.bias_P
    within_NSP = y_NSP - np.stack([y_NSP[targets["artist"] == c].mean((0, 1)) for c in targets["artist"]])[:, None]
    assert np.cov(within_NSP.reshape(-1, 5).T) == pytest.approx(np.eye(5), abs=0.06)


def test_sizes_follow_from_the_number_of_classes():
    x_NSD, targets = songs()
    parts = fit_cosine_lda(moments(x_NSD), targets, CLASSES, 12).parts
    assert {task: len(part.weight_PD) for task, part in parts.items()} == {"artist": 5, "language": 1}
    assert {task: part.classes_CP.shape for task, part in parts.items()} == {"artist": (6, 5), "language": (2, 1)}


def test_shrinkage_is_that_of_scikit_learn():
    residual_ND = np.random.default_rng(0).normal(size=(40, 30)) @ np.random.default_rng(1).normal(size=(30, 30))
    expected = ledoit_wolf_shrinkage(residual_ND, assume_centered=True)
    covariance_DD = residual_ND.T @ residual_ND / 40
    assert _ledoit_wolf_shrinkage(covariance_DD, residual_ND, 40) == pytest.approx(expected)


@pytest.mark.parametrize("case", ["one class", "one song each", "silent songs", "unlabelled songs", "constant values"])
def test_poor_data_gives_finite_heads(case):
    x_NSD, targets = songs(per_class=3)
    artist_N = targets["artist"].copy()
    if case == "one class":
        artist_N[:] = 0
    if case == "one song each":
        artist_N[np.arange(len(artist_N)) % 3 > 0] = MISSING
    if case == "unlabelled songs":
        artist_N[:9] = MISSING
    if case == "constant values":
        x_NSD[..., :6] = 3.0
    found = moments(x_NSD)
    if case == "silent songs":
        found.count_N[:2], found.sum_ND[:2] = 0, 0
        kept_K = found.sample_track_K >= 2
        sample_KD = found.sample_KD[kept_K]
        found = replace(
            found,
            sample_KD=sample_KD,
            sample_track_K=found.sample_track_K[kept_K],
            scatter_DD=sample_KD.T @ sample_KD,
        )
    part = fit_cosine_lda(found, {"artist": artist_N}, {"artist": 6}, 12).parts["artist"]
    assert all(np.isfinite(values).all() for values in (part.weight_PD, part.bias_P, part.classes_CP))
    assert (np.isclose(np.linalg.norm(part.classes_CP, axis=1), 1) | (part.classes_CP == 0).all(1)).all()


@pytest.fixture(scope="module")
def fitted():
    """A model with these heads, what they were fitted on, and segments."""
    torch.manual_seed(0)
    model = MultitaskCNN(ModelConfig(classes=CLASSES, trunk="statistics", trunk_values=12)).eval()
    mel_B1TF = torch.rand(30, 1, FRAMES, BANDS)
    with torch.no_grad():
        x_NSD = model.embed(mel_B1TF).double().numpy()[:, None]
    targets = {"artist": np.arange(30) % 6, "language": np.arange(30) % 2}
    lda = fit_cosine_lda(moments(x_NSD), targets, CLASSES, 12)
    return with_cosine_heads(model, lda), lda, mel_B1TF, x_NSD


def test_a_model_with_these_heads_gives_unit_vectors_side_by_side(fitted):
    model, lda, mel_B1TF, x_NSD = fitted
    with torch.no_grad():
        embedding_BE, logits = model.embed(mel_B1TF), model(mel_B1TF)
    assert embedding_BE.shape == (30, EMBEDDING)
    assert model.config.parts == {"artist": 5, "language": 1}
    length_B = embedding_BE[:, :5].norm(dim=1).numpy()
    assert np.sort(length_B)[1:] == pytest.approx(np.ones(29), abs=1e-5)  # one of 30 is beyond 99 %
    assert embedding_BE[:, 5].abs().numpy() == pytest.approx(length_B, abs=1e-5)
    assert not embedding_BE[:, 6:].any()
    for task in CLASSES:
        assert (logits[task].argmax(1).numpy() == tag(lda.parts[task], x_NSD)).all()
        assert logits[task].abs().max() <= 15 + 1e-4


def test_a_segment_unlike_the_training_segments_has_a_short_embedding(fitted):
    model, lda, _, _ = fitted
    values_1D = torch.from_numpy(lda.typical.centre_D + 2 * lda.typical.largest * lda.typical.scale_D).float()[None]
    with torch.no_grad():
        assert model.projection(values_1D)[:, :5].norm().item() == pytest.approx(2**-8, rel=1e-3)


def test_such_a_model_is_stored_and_its_heads_are_dropped_as_any(fitted):
    model, _, mel_B1TF, _ = fitted
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config
    only = drop_head(model, "language")
    with torch.no_grad():
        assert torch.equal(only.embed(mel_B1TF), model.embed(mel_B1TF))
        assert torch.equal(only(mel_B1TF)["artist"], model(mel_B1TF)["artist"])
