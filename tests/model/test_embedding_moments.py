"""One pass over segments gives the sums of their embeddings by track."""

import numpy as np
import pytest
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN
from mtl_core.model.embedding_moments import embedding_moments, mean_embeddings, value_moments

TRACK_S = [0, 0, 2, 0, 2, 2, 1]
SILENT_S = [2, 6]  # a segment of track 2, and all of track 1


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MultitaskCNN(ModelConfig(classes={"artist": 3}, trunk="statistics"))


@pytest.fixture(scope="module")
def batches():
    mel_STF = 2 * torch.rand(len(TRACK_S), FRAMES, BANDS)
    mel_STF[SILENT_S] = 0
    return [{"mel": mel_STF[rows].half(), "track": torch.tensor(TRACK_S)[rows]} for rows in (slice(0, 4), slice(4, 7))]


def test_moments_are_those_of_the_segments_with_sound(model, batches):
    found = value_moments(model, batches, 4, FrontEnd(), sample_every=2)
    assert found.count_N.tolist() == [3, 0, 2, 0]
    with torch.no_grad():
        x_SE = model.eval().embed(torch.cat([batch["mel"] for batch in batches]).float()[:, None]).double().numpy()
    sounds_S = np.setdiff1d(np.arange(len(TRACK_S)), SILENT_S)
    assert found.sum_ND[0] == pytest.approx(x_SE[[0, 1, 3]].sum(0), abs=1e-5)
    assert found.scatter_DD == pytest.approx(x_SE[sounds_S].T @ x_SE[sounds_S], abs=1e-4)
    assert found.sample_KD == pytest.approx(x_SE[sounds_S][::2], abs=1e-5)
    assert found.sample_track_K.tolist() == np.array(TRACK_S)[sounds_S][::2].tolist()
    only_sums = embedding_moments(model, batches, 4, FrontEnd())
    assert not only_sums.scatter_DD.any() and not len(only_sums.sample_KD)
    assert only_sums.sum_ND == pytest.approx(found.sum_ND)


def test_mean_embeddings_of_silent_tracks_are_nan(model, batches):
    found = embedding_moments(model, batches, 4, FrontEnd())
    mean_NE = mean_embeddings(found)
    assert mean_NE.dtype == np.float32
    assert mean_NE[2] == pytest.approx(found.sum_ND[2] / 2, abs=1e-5)
    assert np.isnan(mean_NE[[1, 3]]).all()


def test_no_segments(model):
    assert embedding_moments(model, [], 0, FrontEnd()).sum_ND.shape == (0, 96)
