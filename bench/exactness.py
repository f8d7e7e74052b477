"""The largest difference of the mels from librosa's, after the log, on the same excerpts.

python bench/exactness.py [RECORDING …]
"""

import sys
from pathlib import Path

import librosa
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "audio" / "golden"))
from generate_mels import reference, signals

from mtl_core.audio.filter_bank import default_filter_bank, make_filter_bank
from mtl_core.audio.front_end import FrontEnd, read_recording
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.audio.segments import segment_starts, slice_segments

CONFIG = MelConfig()

if __name__ == "__main__":
    filter_bank_FK = default_filter_bank(CONFIG)
    difference = np.abs(filter_bank_FK - make_filter_bank(CONFIG)).max()
    print(f"{difference:.1e}  filter bank, librosa {librosa.__version__}")
    for name, segment in signals().items():
        difference = np.abs(log_mel(segment[None], CONFIG, filter_bank_FK)[0] - reference(segment)).max()
        print(f"{difference:.1e}  {name}")
    for path in map(Path, sys.argv[1:]):
        with path.open("rb") as file:
            excerpts = [excerpt.samples for excerpt in read_recording(file, FrontEnd()).excerpts]
        segments_SN = np.concatenate([slice_segments(y_N, segment_starts(len(y_N), 20)) for y_N in excerpts])
        expected = np.stack([reference(segment) for segment in segments_SN])
        print(f"{np.abs(log_mel(segments_SN, CONFIG, filter_bank_FK) - expected).max():.1e}  {path.name}")
