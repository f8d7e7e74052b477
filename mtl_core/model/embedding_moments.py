"""Embedding moments: one pass of a trained model over its segments, on all workers.

It serves the closed-form heads (`cosine_lda`) and the mean embeddings by which tracks are scored.

Legend: B batch, N tracks, E values of an embedding.
"""

from collections.abc import Iterable

import numpy as np
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.sound_level import has_sound
from mtl_core.model.cnn import MultitaskCNN
from mtl_core.model.cosine_lda import Moments
from mtl_core.model.train_step import ONE_WORKER, TensorBatch, Workers


@torch.no_grad()
def embedding_moments(
    model: MultitaskCNN,
    batches: Iterable[TensorBatch],
    n_tracks: int,
    front_end: FrontEnd,
    *,
    with_scatter: bool = False,
    workers: Workers = ONE_WORKER,
) -> Moments:
    """The moments of the embeddings of all segments with sound; each worker passes its share of the segments.

    Args:
        model: set to evaluation mode; it computes in float32.
        batches: this worker's share; `track` is 0 to n_tracks - 1.
        front_end: of the mels.
        with_scatter: whether the sum of x x^T is needed; else it is 0.
    """
    model.eval()
    n_values, device = model.config.embedding, next(model.parameters()).device
    count_N = torch.zeros(n_tracks, dtype=torch.float64, device=device)
    sum_NE = torch.zeros(n_tracks, n_values, dtype=torch.float64, device=device)
    scatter_EE = torch.zeros(n_values, n_values, dtype=torch.float64, device=device)
    for batch in batches:
        sounds_B = has_sound(batch["mel"].cpu().numpy(), front_end.mel, front_end.filter_bank)
        if not sounds_B.any():
            continue
        mel_BTF, track_B = (batch[name][torch.from_numpy(sounds_B).to(device)] for name in ("mel", "track"))
        X_BE = model.embed(mel_BTF.float().unsqueeze(1)).double()
        count_N.index_add_(0, track_B, torch.ones_like(track_B, dtype=torch.float64))
        sum_NE.index_add_(0, track_B, X_BE)
        if with_scatter:
            scatter_EE += X_BE.T @ X_BE
    parts = [workers.sum({"part": part})["part"].cpu().numpy() for part in (count_N, sum_NE, scatter_EE)]
    return Moments(count_N=parts[0], sum_ND=parts[1], scatter_DD=parts[2])


def mean_embeddings(moments: Moments) -> np.ndarray:
    """(N, E) float32; nan for a track without a segment that counts."""
    with np.errstate(invalid="ignore"):
        return (moments.sum_ND / moments.count_N[:, None]).astype(np.float32)
