"""Mixup: the segments and labels of a blend."""

import pytest
import torch

from mtl_core.model.mixup import mixup


def test_a_blend_has_two_segments_and_their_labels():
    torch.manual_seed(0)
    X_B1TF = torch.eye(6)[:, None, :, None]  # a blend shows which segments are in it
    targets = {"artist": torch.arange(6), "language": torch.tensor([0, 1, -1, 0, 1, -1])}
    shares = []
    for _ in range(50):
        blend, ((share, own), (rest, partners)) = mixup(X_B1TF, targets, 0.4)
        assert share + rest == pytest.approx(1)
        assert own["artist"].tolist() == list(range(6))
        assert sorted(partners["artist"].tolist()) == list(range(6))
        expected = share * torch.eye(6) + rest * torch.eye(6)[partners["artist"]]
        torch.testing.assert_close(blend[:, 0, :, 0], expected)
        assert torch.equal(partners["language"], targets["language"][partners["artist"]])
        shares.append(share)
    assert 0.2 < sum(shares) / 50 < 0.8
    assert min(shares) < 0.1 < 0.9 < max(shares)


def test_the_seed_determines_the_blends():
    X_B1TF, targets = torch.rand(4, 1, 3, 2), {"artist": torch.arange(4)}
    blends = []
    for _ in range(2):
        torch.manual_seed(3)
        blends.append(mixup(X_B1TF, targets, 0.4)[0])
    assert torch.equal(*blends)
