"""One pass over segments gives the sums of their embeddings by track."""

import numpy as np
import pytest
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.segments import rounds
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN
from mtl_core.model.embedding_moments import embedding_moments, mean_embeddings, round_means, value_moments

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


def test_round_means_are_those_of_the_first_segments(model):
    """Of tracks of 20, 3 and 9 segments; the first round of the last one is silent."""
    segments_N = np.array([20, 3, 9])
    track_S = np.repeat(np.arange(3), segments_N)
    segment_S = np.concatenate([np.arange(n) for n in segments_N])
    mel_STF = 2 * torch.rand(len(track_S), FRAMES, BANDS)
    for number in rounds(9)[0]:
        mel_STF[23 + number] = 0
    batches = [
        {
            "mel": mel_STF[rows].half(),
            "track": torch.from_numpy(track_S[rows]),
            "segment": torch.from_numpy(segment_S[rows]),
        }
        for rows in (slice(0, 13), slice(13, 32))
    ]
    found = round_means(model, batches, segments_N, FrontEnd(sampling="spread", segments=32))
    with torch.no_grad():
        x_SE = model.eval().embed(mel_STF.half().float()[:, None]).numpy()
    assert list(found) == [4, 8, 16, 32]
    first = np.concatenate(rounds(20)[:2])
    assert found[8].mean_NE[0] == pytest.approx(x_SE[first].mean(0), abs=1e-5)
    assert found[32].mean_NE[0] == pytest.approx(x_SE[:20].mean(0), abs=1e-5)
    for end in found:
        assert found[end].mean_NE[1] == pytest.approx(x_SE[20:23].mean(0), abs=1e-5)
    assert np.isnan(found[4].mean_NE[2]).all()
    assert [means.count_N.tolist() for means in found.values()] == [[4, 3, 0], [8, 3, 4], [16, 3, 5], [20, 3, 5]]


def test_no_tracks_have_no_rounds(model):
    (means,) = round_means(model, [], np.zeros(0, np.int64), FrontEnd()).values()
    assert means.mean_NE.shape == (0, 96)


def test_drawn_segments_and_the_sampling_paper_have_no_rounds(model):
    batch = {"mel": torch.rand(40, FRAMES, BANDS).half(), "track": torch.zeros(40, dtype=torch.int64)}
    batch["segment"] = torch.arange(40)
    for front_end in (FrontEnd(), FrontEnd(sampling="spread", segments=32)):
        assert [
            means.count_N.tolist() for means in round_means(model, [batch], np.array([40]), front_end).values()
        ] == [[40]]
