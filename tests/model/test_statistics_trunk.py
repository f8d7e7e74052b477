"""The statistics trunk: what its embedding depends on."""

import torch

from mtl_core.model.cnn import BANDS, EMBEDDING, FRAMES, ModelConfig, MultitaskCNN

CONFIG = ModelConfig(classes={"artist": 68, "language": 17}, trunk="statistics")


def _trained(steps=3):
    """A model whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    model = MultitaskCNN(CONFIG).train()
    for _ in range(steps):
        model(2 * torch.rand(8, 1, FRAMES, BANDS))
    return model.eval()


def test_embedding_and_size():
    model = _trained()
    assert model.embed(torch.rand(2, 1, FRAMES, BANDS)).shape == (2, EMBEDDING)
    assert sum(parameter.numel() for parameter in model.parameters()) < 250_000  # the paper's has 193,813


@torch.no_grad()
def test_the_embedding_ignores_level_and_depends_on_bands_and_on_order_in_time():
    model, X_B1TF = _trained(), torch.rand(1, 1, FRAMES, BANDS)
    embedding = model.embed(X_B1TF)
    torch.testing.assert_close(model.embed(X_B1TF + 0.7), embedding, rtol=1e-3, atol=1e-4)
    for changed in (X_B1TF.flip(3), X_B1TF.sort(2).values):
        assert float((model.embed(changed) - embedding).abs().max()) > 0.05


def test_silence_has_gradients_that_are_finite():
    model = MultitaskCNN(CONFIG).train()
    X_B1TF = torch.zeros(4, 1, FRAMES, BANDS, requires_grad=True)
    sum(logits.square().sum() for logits in model(X_B1TF).values()).backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())
