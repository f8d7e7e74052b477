"""The fixed statistics beside the trunk are those of a plain computation, in torch and in OpenVINO."""

import itertools

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from mtl_core.inference.artifacts.onnx_export import export_onnx
from mtl_core.inference.openvino_engine import CpuEngine
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN
from mtl_core.model.segment_statistics import SegmentStatistics, n_statistics


def plain(mel_TF):
    x_TF = mel_TF - mel_TF.mean()
    cepstra_TC = scipy.fft.dct(x_TF, axis=1, norm="ortho")[:, 1:13]
    z_TK = np.concatenate((cepstra_TC[1:-1], cepstra_TC[2:] - cepstra_TC[:-2]), 1)
    r_KK = np.corrcoef(z_TK.T)
    r_P = r_KK[np.triu_indices(24, 1)].clip(-0.99, 0.99)
    window_T = np.hanning(len(x_TF))
    power_QC = np.abs(np.fft.fft(window_T[:, None] * (cepstra_TC - cepstra_TC.mean(0)), axis=0)) ** 2
    edges = [1, 2, 3, 4, 6, 8, 12, 17, 24, 34, 48, 68]
    modulation = [np.log(power_QC[a:b].mean(0) + 1e-3) for a, b in itertools.pairwise(edges)]
    bands = [x_TF.mean(0), x_TF.std(0), np.abs(np.diff(x_TF, axis=0)).mean(0)]
    return np.concatenate((*bands, np.log(z_TK.std(0)), np.arctanh(r_P), np.stack(modulation, 1).ravel()))


@pytest.fixture(scope="module")
def segments():
    """Segments with correlated bands."""
    rng = np.random.default_rng(0)
    mel_BTF = rng.normal(size=(3, FRAMES, 8)) @ rng.normal(size=(8, BANDS)) + rng.normal(size=(3, FRAMES, BANDS))
    return torch.from_numpy(mel_BTF[:, None].astype(np.float32))


def test_statistics_are_those_of_a_plain_computation(segments):
    found = SegmentStatistics(FRAMES, BANDS)(segments).numpy()
    assert found.shape == (3, n_statistics(BANDS)) == (3, 720)
    for row, mel_1TF in zip(found, segments.numpy(), strict=True):
        assert row == pytest.approx(plain(mel_1TF[0].astype(np.float64)), abs=2e-4)


def test_a_constant_segment_gives_finite_statistics():
    assert torch.isfinite(SegmentStatistics(FRAMES, BANDS)(torch.full((1, 1, FRAMES, BANDS), 2.0))).all()


def test_a_network_with_statistics_is_the_same_in_openvino(segments):
    torch.manual_seed(0)
    config = ModelConfig(
        classes={"artist": 3, "language": 2}, trunk="statistics", statistics=True, parts={"artist": 70, "language": 16}
    )
    model = MultitaskCNN(config).eval()
    assert config.n_values == 96 + 720
    assert isinstance(model.statistics, nn.Module) and "statistics" not in " ".join(model.state_dict())
    with torch.no_grad():
        expected_BE = model.embed(segments).numpy()
    found_BE = CpuEngine(export_onnx(model)).infer(segments[:, 0].numpy())
    assert np.abs(found_BE - expected_BE).max() < 1e-4
