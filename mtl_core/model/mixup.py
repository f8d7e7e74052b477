"""Augment: what a batch of training segments goes through before the network hears it.

Mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018): each segment is blended with another of its
batch, and its loss with that of the other's labels. Legend: B batch, T frames, F bands.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def mixup(
    X_B1TF: Tensor, targets: Mapping[str, Tensor], strength: float
) -> tuple[Tensor, list[tuple[float, dict[str, Tensor]]]]:
    """Blend each segment with another of the batch.

    Args:
        X_B1TF: segments (B, 1, T, F).
        targets: task -> (B,) indices of labels.
        strength: > 0; a segment's share in its blend is drawn from Beta(strength, strength), one for the batch, from
            numpy's generator seeded by torch's global state.

    Returns:
        The blends (B, 1, T, F), and (share, targets) twice: of the segments, and of their partners.
    """
    draw = np.random.default_rng(int(torch.randint(2**62, ())))
    share = float(draw.beta(strength, strength))
    partner_B = torch.from_numpy(draw.permutation(len(X_B1TF))).to(X_B1TF.device)
    partners = {task: target_B[partner_B] for task, target_B in targets.items()}
    return torch.lerp(X_B1TF[partner_B], X_B1TF, share), [(share, dict(targets)), (1 - share, partners)]
