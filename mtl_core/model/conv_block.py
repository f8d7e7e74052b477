"""Blocks: Conv 3x3 -> ReLU -> BatchNorm -> MaxPool 2x2 -> Dropout, and how a CPU trains one in half the time.

Layer by layer, more time goes into moving activations than into convolutions: 26 ms a segment on one core, of which 9
are convolutions. The middle of a block is therefore one operation, for training on a CPU (`_ReluNormPool`):

- A norm is affine for each channel, and a maximum commutes with an increasing function (a decreasing one is the
  minimum's): the pooled quarter of the values is normalised, not all of them.
- Behind the pooling the gradient is zero but at the maxima. With R the rectified values, istd = 1 / sqrt(var + eps),
  a = gamma istd, G the pooled output's gradient and M the number of values of a channel, BatchNorm's gradient is
      dR = scatter(a G) + k0 + k1 R,   k1 = -a istd dgamma / M,   k0 = -a dbeta / M - k1 mean,
  and both sums, dbeta = sum G and dgamma = sum G (R_at_maximum - mean) istd, run over the pooled quarter.
- The gradient takes the place of the activations that it was made from, a megabyte at a time.

Everything is in channels_last order. Legend: N examples, C channels, H and W height and width, P pooled positions,
M = N H W.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

CACHE_VALUES = 1 << 18  # float32 values of a megabyte: a core's cache holds them
LEVELS = 1 << 16  # of the random numbers that dropout draws


class Dropout(nn.Module):
    """Dropout with 16 random bits a value: nn.Dropout draws a double for each, which takes 5 times as long.

    Args:
        share: of the values that are dropped, in [0, 1); rounded to 1 / 65,536 on a CPU.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, X: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return X
        if X.device.type != "cpu":
            return functional.dropout(X, self.share)
        dropped = round(self.share * LEVELS)
        bits = torch.empty(-(-X.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: X.numel()]
        kept = torch.empty_like(X, dtype=torch.bool).copy_(
            (bits >= dropped - LEVELS // 2).as_strided(X.shape, X.stride())
        )
        return X * (kept * (LEVELS / (LEVELS - dropped)))

    def extra_repr(self) -> str:
        return f"share={self.share}"


class Block(nn.Sequential):
    """Conv -> ReLU -> BatchNorm -> MaxPool -> Dropout, in and out (N, C, H, W), channels_last."""

    def __init__(
        self, in_channels: int, out_channels: int, *, padding: str, dropout: float, eps: float, momentum: float
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),
            nn.ReLU(),
            nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
            nn.MaxPool2d(2),
            Dropout(dropout),
        )

    def forward(self, X_NCHW: Tensor) -> Tensor:
        if not self.training or X_NCHW.device.type != "cpu":
            return super().forward(X_NCHW)
        layers: list[Any] = [*self]
        conv, _, norm, _, dropout = layers
        norm.num_batches_tracked.add_(1)
        return dropout(
            _ReluNormPool.apply(
                conv(X_NCHW), norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
            )
        )


class _ReluNormPool(torch.autograd.Function):
    """MaxPool(BatchNorm(ReLU(Z_NCHW))) with the statistics of the batch, which also move the running ones."""

    @staticmethod
    def forward(
        ctx: Any,
        Z_NCHW: Tensor,
        gamma_C: Tensor,
        beta_C: Tensor,
        running_mean_C: Tensor,
        running_var_C: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        R_NCHW = Z_NCHW.detach().contiguous(memory_format=torch.channels_last).relu_()  # a convolution keeps no output
        R_MC = _by_position(R_NCHW).flatten(0, 1)
        M = len(R_MC)
        mean_C = R_MC.new_ones(1, M).mm(R_MC)[0] / M  # products of matrices sum faster than sums do
        var_C = ((R_MC.t() @ R_MC).diagonal() / M - mean_C * mean_C).clamp_(min=0)
        running_mean_C.lerp_(mean_C, momentum)
        running_var_C.lerp_(var_C * (M / max(M - 1, 1)), momentum)
        istd_C = (var_C + eps).rsqrt()
        sign_C11 = torch.where(gamma_C < 0, -1.0, 1.0).to(R_NCHW)[:, None, None]
        rising = bool((gamma_C >= 0).all())
        P_NCHW, at_NCHW = functional.max_pool2d(R_NCHW if rising else R_NCHW * sign_C11, 2, return_indices=True)
        P_NCHW *= sign_C11
        a_C = gamma_C * istd_C
        ctx.save_for_backward(R_NCHW, P_NCHW, at_NCHW, gamma_C, mean_C, istd_C)
        return torch.addcmul((beta_C - mean_C * a_C)[:, None, None], P_NCHW, a_C[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        R_NCHW, P_NCHW, at_NCHW, gamma_C, mean_C, istd_C = ctx.saved_tensors
        M = R_NCHW.numel() // R_NCHW.shape[1]
        G_NPC = _by_position(gradients[0].contiguous(memory_format=torch.channels_last))
        P_NPC, at_NPC, R_NMC = _by_position(P_NCHW), _by_position(at_NCHW), _by_position(R_NCHW)
        a_C = gamma_C * istd_C
        dbeta_C = G_NPC.sum((0, 1))
        dgamma_C = ((G_NPC * P_NPC).sum((0, 1)) - mean_C * dbeta_C) * istd_C
        k1_C = -a_C * istd_C * dgamma_C / M
        k0_C = -a_C * dbeta_C / M - k1_C * mean_C
        S_NPC = (G_NPC * a_C).masked_fill_(P_NPC <= 0, 0)  # a maximum that ReLU had cut passes nothing on
        at_once = max(1, CACHE_VALUES // R_NMC[0].numel())
        for start in range(0, len(R_NMC), at_once):
            part = slice(start, start + at_once)
            dense = torch.addcmul(k0_C, R_NMC[part], k1_C)
            torch.ops.aten.threshold_backward.grad_input(dense, R_NMC[part], 0, grad_input=R_NMC[part])
            R_NMC[part].scatter_add_(1, at_NPC[part], S_NPC[part])
        return R_NCHW, dgamma_C, dbeta_C, None, None, None, None


def _by_position(X_NCHW: Tensor) -> Tensor:
    """(N, H W, C), a view of channels_last values."""
    return X_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
