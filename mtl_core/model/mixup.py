"""Mixup: training on blends of two segments of a batch, and of their labels.

Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. Legend: B batch, T frames, F bands.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mtl_core.model.losses import Mixture


def mixup(X_B1TF: Tensor, targets: Mapping[str, Tensor], strength: float) -> tuple[Tensor, Mixture]:
    """Blend each segment with a partner of the batch; returns the blends and (share, targets) of both.

    The share of a segment in its blend is drawn from Beta(strength, strength), once for the batch. The numbers come
    from a numpy generator that is seeded by torch's global random state.

    Args:
        X_B1TF: segments (B, 1, T, F).
        targets: task -> (B,) classes.
        strength: > 0.
    """
    generator = np.random.default_rng(int(torch.randint(2**62, ())))
    share = float(generator.beta(strength, strength))
    partner_B = torch.from_numpy(generator.permutation(len(X_B1TF))).to(X_B1TF.device)
    partner_targets = {task: targets_B[partner_B] for task, targets_B in targets.items()}
    return torch.lerp(X_B1TF[partner_B], X_B1TF, share), [(share, dict(targets)), (1 - share, partner_targets)]
