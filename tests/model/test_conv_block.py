"""The fused block: the values and gradients of its layers one by one; dropout's share and scale."""

import copy

import pytest
import torch
from torch import nn

from mtl_core.model.conv_block import Block, Dropout


def _block(**changes):
    torch.manual_seed(0)
    block = Block(3, 8, **{"padding": "valid", "dropout": 0.0, "eps": 1e-3, "momentum": 0.1, **changes}).double()
    nn.init.uniform_(block[2].weight, -0.5, 1.0)  # falling norms too: their maximum is the minimum's
    nn.init.normal_(block[2].bias)
    return block.to(memory_format=torch.channels_last).train()


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize(
    ("padding", "shape"), [("valid", (5, 3, 23, 12)), ("same", (2, 3, 4, 7)), ("valid", (1, 3, 4, 4))]
)
def test_fused_is_its_layers(padding, shape, rising):
    fused = _block(padding=padding)
    if rising:
        fused[2].weight.data.abs_()
    plain = copy.deepcopy(fused)
    plain.__class__ = nn.Sequential
    results = []
    for block in (fused, plain):
        X_NCHW = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        Y_NCHW = block(X_NCHW)
        (Y_NCHW.exp().sum()).backward()
        gradients = [parameter.grad for parameter in block.parameters()]
        results.append([Y_NCHW, X_NCHW.grad, *gradients, *block.buffers()])
    assert len(results[0]) == 2 + 4 + 3
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_silence_passes_no_gradient_on_and_gives_no_nan():
    block = _block()
    block[0].bias.data.fill_(-1.0)
    X_NCHW = torch.zeros(2, 3, 12, 8, dtype=torch.float64, requires_grad=True)
    block(X_NCHW).sum().backward()
    assert not X_NCHW.grad.any()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in block.parameters())


def test_a_second_pass_back_is_refused_as_the_activations_are_gone():
    Y_NCHW = _block()(torch.randn(2, 3, 12, 8, dtype=torch.float64))
    Y_NCHW.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Y_NCHW.sum().backward()


@pytest.mark.parametrize("share", [0.25, 0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    X = torch.ones(64, 8, 33, 21).contiguous(memory_format=torch.channels_last)
    Y = Dropout(share).train()(X)
    dropped = float((Y == 0).float().mean())
    assert dropped == pytest.approx(share, abs=4 * (share * (1 - share) / X.numel()) ** 0.5)
    assert Y[Y != 0].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-4)
    assert Y.stride() == X.stride()
    by_channel = (Y == 0).float().mean((0, 2, 3))
    assert float((by_channel - share).abs().max()) < 0.01
    assert torch.equal(Dropout(share).eval()(X), X)
    assert not torch.equal(Dropout(share).train()(X), Y)
    torch.manual_seed(0)
    assert torch.equal(Dropout(share).train()(X), Y)
