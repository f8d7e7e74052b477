"""Embedding moments: a pass of a trained model over its segments, on all workers.

It serves the closed-form heads (`cosine_lda`) and the mean embeddings by which tracks are scored.

Legend: B batch, N tracks, E values of an embedding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.segments import FIRST_ROUND, rounds
from mtl_core.audio.sound_level import has_sound
from mtl_core.model.class_geometry import Moments
from mtl_core.model.cnn import BANDS, MultitaskCNN
from mtl_core.model.segment_statistics import band_statistics
from mtl_core.model.train_step import ONE_WORKER, TensorBatch, Workers


def embedding_moments(
    model: MultitaskCNN,
    batches: Iterable[TensorBatch],
    n_tracks: int,
    front_end: FrontEnd,
    *,
    workers: Workers = ONE_WORKER,
) -> Moments:
    """The sums of the embeddings of all segments with sound; each worker passes its share of the segments.

    Args:
        model: set to evaluation mode; it computes in float32.
        batches: this worker's share; `track` is 0 to n_tracks - 1.
        front_end: of the mels.

    Returns:
        Moments without second ones and without a sample.
    """
    model.eval()
    device = next(model.parameters()).device
    return _moments(
        model.embed, model.config.embedding, device, batches, n_tracks, front_end, workers, sample_every=None
    )


@dataclass(frozen=True, kw_only=True)
class RoundMeans:
    """What the first segments of tracks, in the order of `segments.rounds`, give."""

    mean_NE: np.ndarray  # (N, E) float32, the mean embedding; nan where no segment so far has sound
    count_N: np.ndarray  # (N,) the segments with sound


def round_means(
    model: MultitaskCNN,
    batches: Iterable[TensorBatch],
    segments_N: np.ndarray,
    front_end: FrontEnd,
    *,
    workers: Workers = ONE_WORKER,
) -> dict[int, RoundMeans]:
    """The mean embeddings of tracks after each round: number of segments -> the means. The last entry has all segments.

    Args:
        segments_N: the number of segments of each track, with and without sound.
        batches: this worker's share, each with `segment`, the numbers of the segments in their tracks.
        model, front_end, workers: as of `embedding_moments`.
    """
    ends = [FIRST_ROUND]
    while ends[-1] < segments_N.max(initial=0) and _in_rounds(segments_N, front_end):
        ends.append(2 * ends[-1])
    n_rounds = len(ends)

    def by_round() -> Iterable[TensorBatch]:
        for batch in batches:
            places = zip(batch["track"].tolist(), batch["segment"].tolist(), strict=True)
            group = [
                track * n_rounds + _round_of(int(segments_N[track]), n_rounds)[segment] for track, segment in places
            ]
            yield {**batch, "track": torch.tensor(group, device=batch["track"].device)}

    moments = embedding_moments(model, by_round(), len(segments_N) * n_rounds, front_end, workers=workers)
    count_NR = moments.count_N.reshape(-1, n_rounds).cumsum(1)
    sum_NRE = moments.sum_ND.reshape(len(segments_N), n_rounds, moments.sum_ND.shape[1]).cumsum(1)
    means = {}
    for i, end in enumerate(ends):
        with np.errstate(invalid="ignore"):
            mean_NE = (sum_NRE[:, i] / count_NR[:, i, None]).astype(np.float32)
        means[end] = RoundMeans(mean_NE=mean_NE, count_N=count_NR[:, i].astype(np.int64))
    return means


def _in_rounds(segments_N: np.ndarray, front_end: FrontEnd) -> bool:
    """Whether segments are spread over the recording, and not drawn at random."""
    return front_end.segments is not None and bool(segments_N.max(initial=0) <= front_end.segments)


@cache
def _round_of(n_segments: int, n_rounds: int) -> np.ndarray:
    """(n_segments,) the round of each segment; the last of so many rounds has those of all later ones."""
    round_S = np.zeros(n_segments, np.int64)
    for number, numbers_R in enumerate(rounds(n_segments)):
        round_S[numbers_R] = min(number, n_rounds - 1)
    return round_S


def value_moments(
    model: MultitaskCNN,
    batches: Iterable[TensorBatch],
    n_tracks: int,
    front_end: FrontEnd,
    *,
    sample_every: int,
    workers: Workers = ONE_WORKER,
) -> Moments:
    """The moments of the values that closed-form heads are fitted on; of so many segments one is in the sample.

    The other arguments are those of `embedding_moments`.
    """
    model.eval()
    n_values, device = model.config.n_values, next(model.parameters()).device
    return _moments(model.values, n_values, device, batches, n_tracks, front_end, workers, sample_every)


def band_moments(
    batches: Iterable[TensorBatch],
    n_tracks: int,
    front_end: FrontEnd,
    device: torch.device,
    *,
    sample_every: int,
    workers: Workers = ONE_WORKER,
) -> Moments:
    """The moments of the band statistics that the linear baseline is fitted on; see `value_moments`."""
    return _moments(band_statistics, 3 * BANDS, device, batches, n_tracks, front_end, workers, sample_every)


@torch.no_grad()
def _moments(
    values: Callable[[Tensor], Tensor],
    n_values: int,
    device: torch.device,
    batches: Iterable[TensorBatch],
    n_tracks: int,
    front_end: FrontEnd,
    workers: Workers,
    sample_every: int | None,
) -> Moments:
    count_N = torch.zeros(n_tracks, dtype=torch.float64, device=device)
    sum_NE = torch.zeros(n_tracks, n_values, dtype=torch.float64, device=device)
    scatter_EE = torch.zeros(n_values, n_values, dtype=torch.float64, device=device)
    sample: list[tuple[np.ndarray, np.ndarray]] = []
    seen = 0
    for batch in batches:
        sounds_B = has_sound(batch["mel"].cpu().numpy(), front_end.mel, front_end.filter_bank)
        if not sounds_B.any():
            continue
        mel_BTF, track_B = (batch[name][torch.from_numpy(sounds_B).to(device)] for name in ("mel", "track"))
        x_BE = values(mel_BTF.float().unsqueeze(1))
        X_BE = x_BE.double()
        count_N.index_add_(0, track_B, torch.ones_like(track_B, dtype=torch.float64))
        sum_NE.index_add_(0, track_B, X_BE)
        if sample_every is not None:
            scatter_EE += X_BE.T @ X_BE
            kept = slice(-seen % sample_every, None, sample_every)
            sample.append((x_BE[kept].cpu().numpy(), track_B[kept].cpu().numpy()))
        seen += len(x_BE)
    parts = [workers.sum({"part": part})["part"].cpu().numpy() for part in (count_N, sum_NE, scatter_EE)]
    samples = [pair for of_worker in workers.gather(sample) for pair in of_worker]
    return Moments(
        count_N=parts[0],
        sum_ND=parts[1],
        scatter_DD=parts[2],
        sample_KD=np.concatenate([np.zeros((0, n_values), np.float32), *(values for values, _ in samples)]),
        sample_track_K=np.concatenate([np.zeros(0, np.int64), *(tracks for _, tracks in samples)]),
    )


def mean_embeddings(moments: Moments) -> np.ndarray:
    """(N, E) float32; nan for a track without a segment that counts."""
    with np.errstate(invalid="ignore"):
        return (moments.sum_ND / moments.count_N[:, None]).astype(np.float32)
