"""Filter bank: the weights of the mel bands, as `librosa.filters.mel` makes them on Slaney's scale.

librosa makes them where a front end is defined. From there they travel beside the mels and inside the model artifact,
as bytes of an .npz file. So workers and tagging nodes do not need librosa, whose import takes about a second. Mels and
artifacts of version 0.1 carry no bank: for them this package ships the bank of the default `MelConfig`, which librosa
0.11 made (`python -m mtl_core.audio.filter_bank` makes the file anew).

Legend: F mel bands, K bins of the FFT (n_fft / 2 + 1).
"""

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mtl_core.audio.mel import MelConfig
from mtl_core.errors import InputError

_DEFAULT_FILE = Path(__file__).with_name("default_filter_bank.npz")


def make_filter_bank(config: MelConfig) -> np.ndarray:
    """Weights (F, K) float32, >= 0, of triangular mel bands with equal area.

    Raises:
        InputError: librosa is not installed.
    """
    try:
        from librosa.filters import mel
    except ModuleNotFoundError:
        raise InputError("mel extraction needs librosa: pip install 'mtl-core[train]'") from None
    return mel(**_parameters(config), htk=False, norm="slaney", dtype=np.float32)


def default_filter_bank(config: MelConfig) -> np.ndarray:
    """The bank (F, K) float32 that this package ships, read-only; ValueError if `config` needs another one."""
    if _parameters(config) != _parameters(MelConfig()):
        raise ValueError(f"no filter bank is stored for {config}: define_front_end makes it with librosa")
    return _read_default()


def pack(filter_bank_FK: np.ndarray) -> bytes:
    """The bank as the bytes of an .npz file: 2.5 kB for the default, the same bytes for the same weights."""
    file = io.BytesIO()
    np.savez_compressed(file, filter_bank=filter_bank_FK)
    return file.getvalue()


def unpack(data: bytes) -> np.ndarray:
    """The bank in the bytes that `pack` made; ValueError if they hold none."""
    try:
        return np.load(io.BytesIO(data))["filter_bank"]
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the filter bank cannot be read: {error}") from None


def _parameters(config: MelConfig) -> dict[str, Any]:
    """What the bank depends on, as librosa names it."""
    return {
        "sr": config.sample_rate_hz,
        "n_fft": config.n_fft,
        "n_mels": config.bands,
        "fmin": config.fmin_hz,
        "fmax": config.fmax_hz,
    }


@lru_cache
def _read_default() -> np.ndarray:
    weights_FK = unpack(_DEFAULT_FILE.read_bytes())
    weights_FK.flags.writeable = False
    return weights_FK


if __name__ == "__main__":
    _DEFAULT_FILE.write_bytes(pack(make_filter_bank(MelConfig())))
