"""The largest difference of the front end from librosa, after the log, on the same excerpts.

python bench/exactness.py [RECORDING …]
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "audio" / "golden"))
from generate_mels import reference, signals

from mtl_core.audio.decode import read_recording
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.audio.segments import segment_starts, slice_segments

if __name__ == "__main__":
    for name, segment in signals().items():
        difference = np.abs(log_mel(segment[None], MelConfig())[0] - reference(segment)).max()
        print(f"{difference:.1e}  {name}")
    for path in map(Path, sys.argv[1:]):
        with path.open("rb") as file:
            excerpts = [excerpt.samples for excerpt in read_recording(file).excerpts]
        segments_SN = np.concatenate([slice_segments(y_N, segment_starts(len(y_N), 20)) for y_N in excerpts])
        expected = np.stack([reference(segment) for segment in segments_SN])
        print(f"{np.abs(log_mel(segments_SN, MelConfig()) - expected).max():.1e}  {path.name}")
