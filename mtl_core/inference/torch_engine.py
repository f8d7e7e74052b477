"""Torch engine: a trained model on a GPU. Arrays in, arrays out.

Legend: S segments, B batch, T frames, F mel bands, E embedding (96).
"""

import numpy as np
import torch

from mtl_core.model.cnn import MultitaskCNN

#: The first block's output takes 2.2 MB a segment.
GPU_BATCH_SEGMENTS = 1024


class TorchEngine:
    """Runs a model in float32 on a torch device, to which it is moved; tests without a GPU use "cpu".

    TF32 is switched off in the whole process: by default convolutions round to 10 bits, and scores would be 1e-3 away
    from those of a CPU, which is enough to move a track across a threshold.
    """

    def __init__(self, model: MultitaskCNN, device: str = "cuda") -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._device = device
        self._model = model.to(device).eval()

    def infer(self, mel_STF: np.ndarray) -> np.ndarray:
        """Segments (S, 187, 96) float32, S >= 1 -> embeddings (S, E) float32."""
        with torch.inference_mode():
            batches = torch.from_numpy(mel_STF)[:, None].split(GPU_BATCH_SEGMENTS)
            return (
                torch.cat([self._model.embed(X_B1TF.to(self._device, non_blocking=True)) for X_B1TF in batches])
                .cpu()
                .numpy()
            )
