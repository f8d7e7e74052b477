"""Sound level: which segments hold sound, by their mel spectra.

It is computed from the mels, which training and tagging both have, not from the samples.

Legend: S segments, T frames, F mel bands, K bins of the FFT (n_fft / 2 + 1).
"""

import numpy as np

from mtl_core.audio.mel import MelConfig

SILENCE_MEAN_SQUARE = 1e-6  # of a frame's samples: -60 dB of full scale
SOUND_FRAMES = 5  # that a segment with sound has at least: 80 ms


def has_sound(mel_STF: np.ndarray, config: MelConfig, filter_bank_FK: np.ndarray) -> np.ndarray:
    """(S,) whether 5 frames or more of each segment are louder than -60 dB of full scale.

    Args:
        mel_STF: (S, T, F) as `mel.log_mel` makes them with this config and filter bank.
        config: see above.
        filter_bank_FK: (F, K), see above.
    """
    # In float32 exp takes a tenth of the time of expm1, and its rounding is far below the threshold.
    power_STF = np.exp(mel_STF * np.float32(np.log(10)), dtype=np.float32)
    weights_F = _mean_square_weights(config, filter_bank_FK)
    mean_square_ST = power_STF @ weights_F - weights_F.sum()
    return (mean_square_ST > SILENCE_MEAN_SQUARE).sum(1) >= SOUND_FRAMES


def _mean_square_weights(config: MelConfig, filter_bank_FK: np.ndarray) -> np.ndarray:
    """(F,) float32: their product with the compressed power of a frame is the mean square of its samples.

    It is exact for a flat spectrum. A band stands for its share of the bins; Parseval's theorem turns their power into
    a mean square, less the loss by the Hann window, whose squares sum to 3/8 of its samples.
    """
    total_K = filter_bank_FK.sum(0)
    bins_F = (filter_bank_FK / np.where(total_K > 0, total_K, 1)).sum(1)
    area_F = filter_bank_FK.sum(1)
    per_power_F = bins_F / np.where(area_F > 0, area_F, 1)
    return (per_power_F * 2 / (config.n_fft**2 * 3 / 8) / config.compression_factor).astype(np.float32)
