"""Quantize: the network with 8-bit integers for its convolutions' weights and inputs, as an artifact's choice.

Convolutions of 8-bit integers take CPUs half the time. Each block's output is rounded to 256 steps over the range of
its values on calibration segments, the outermost 1 in 100,000 left out (they would widen the steps of all others:
probabilities were off by 0.04 with them, by 0.01 without); each output channel's weights to 255 steps around 0. The
first convolution (its input is the mel spectrum) and the heads stay float32. Here rounding is simulated in torch;
the CPU's runtime recognises it in the exported network and computes with integers.

Legend: B batch, T frames, F bands.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.model.cnn import MultitaskCNN

LEVELS = 256
LEFT_OUT = 1e-5  # of the values, at either end
_SAMPLED = 7  # one value of so many is looked at: sorting millions takes longer than the network


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What the rounding needs beside the weights.

    Args:
        least, greatest: of each block's output before its pooling, but the last one's; least <= 0 < greatest.
    """

    least: tuple[float, ...]
    greatest: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("least", "greatest"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if len(self.least) != len(self.greatest) or not all(
            low <= 0 < high for low, high in zip(self.least, self.greatest, strict=True)
        ):
            raise ValueError(f"a quantization needs least <= 0 < greatest, got {self.least} and {self.greatest}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is its inverse."""
        return {"least": list(self.least), "greatest": list(self.greatest)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Quantization":
        return cls(**values)


@torch.inference_mode()
def calibrate(model: MultitaskCNN, X_B1TF: Tensor) -> Quantization:
    """The ranges that `quantized` needs, from the model's own values on segments (B, 1, 187, 96).

    Raises:
        ValueError: the trunk is not the paper's.
    """
    if model.config.trunk != "paper":
        raise ValueError(f"8-bit integers are for the trunk 'paper', got {model.config.trunk!r}")
    ranges = []
    for block in list(model.trunk)[:-1]:
        *before, pool, _ = block.children()
        for module in before:
            X_B1TF = module(X_B1TF)
        low, high = np.quantile(X_B1TF.flatten()[::_SAMPLED].numpy(), (LEFT_OUT, 1 - LEFT_OUT))
        ranges.append((min(0.0, float(low)), max(1e-6, float(high))))
        X_B1TF = pool(X_B1TF)
    least, greatest = zip(*ranges, strict=True)
    return Quantization(least=least, greatest=greatest)


def quantized(model: MultitaskCNN, quantization: Quantization) -> MultitaskCNN:
    """A copy of the model, in eval mode, that rounds as its integer twin does."""
    twin = copy.deepcopy(model).eval()
    blocks = list(twin.trunk)
    if len(quantization.least) != len(blocks) - 1:
        raise ValueError(f"{len(quantization.least)} ranges do not fit a model of {len(blocks)} blocks")
    for at, (low, high) in enumerate(zip(quantization.least, quantization.greatest, strict=True)):
        *before, pool, _ = blocks[at].children()
        # Rounding keeps the order, so it may stand before the pooling, which is then one of bytes. Not in the first
        # block, whose convolution of floats does better without (measured).
        rounded = _Rounded(low, high)
        twin.trunk[at] = nn.Sequential(*before, *((pool, rounded) if at == 0 else (rounded, pool)))
    for at, block in enumerate(list(twin.trunk)[1:], 1):
        convolution, *after = block.children()
        assert isinstance(convolution, nn.Conv2d)
        twin.trunk[at] = nn.Sequential(_RoundedConvolution(convolution), *after)
    return twin


class _Rounded(nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._step = (high - low) / (LEVELS - 1)
        self._zero = round(-low / self._step)

    def forward(self, X: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(X, self._step, self._zero, 0, LEVELS - 1)


class _RoundedConvolution(nn.Module):
    """A convolution with 8-bit weights, one step a channel, zero at 0."""

    step_C: Tensor
    zero_C: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        step_C = (convolution.weight.detach().abs().amax((1, 2, 3)) / (LEVELS / 2 - 1)).clamp(min=1e-12)
        self.register_buffer("step_C", step_C)
        self.register_buffer("zero_C", torch.zeros_like(step_C, dtype=torch.int32))

    def forward(self, X: Tensor) -> Tensor:
        weight = torch.fake_quantize_per_channel_affine(
            self.convolution.weight, self.step_C, self.zero_C, 0, -LEVELS // 2, LEVELS // 2 - 1
        )
        return nn.functional.conv2d(X, weight, self.convolution.bias, padding=self.convolution.padding)
