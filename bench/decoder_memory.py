"""What decoding takes of a child's address space: python bench/decoder_memory.py FOLDER…

Two excerpts of a minute of each file (the sampling `paper`, which takes most) are decoded by a child of its own, which
may take all of the memory limit. Prints by how much its peak is above that of a child that has decoded nothing.
"""

import re
import sys
from pathlib import Path

import numpy as np

from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_process import Decoder
from mtl_core.audio.front_end import FrontEnd
from mtl_core.errors import TrackError


def peak_mib(path: Path | None) -> float:
    """The peak of a child that decodes a file; of one that refuses a text where there is none."""
    front_end = FrontEnd()
    with Decoder(DecoderLimits(growth_bytes=1 << 31)) as decoder:
        try:
            rate_hz, n_frames = decoder.open(b"no sound" if path is None else str(path))
            decoder.read(front_end.stretches(n_frames, rate_hz))
        except TrackError as error:
            if path is not None:
                print(f"{path.name}: {error.error}")
        children = [folder / "children" for folder in Path("/proc/self/task").iterdir()]
        (child,) = " ".join(file.read_text() for file in children).split() or ["self"]
        status = Path(f"/proc/{child}/status").read_text()
        return int(re.findall(r"VmPeak:\s+(\d+)", status)[0]) / 1024


if __name__ == "__main__":
    paths = sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("*") if path.is_file())
    at_rest = peak_mib(None)
    grown_N = np.array([peak_mib(path) - at_rest for path in paths])
    shares = ", ".join(f"{share:.0%}: {np.quantile(grown_N, share):.0f}" for share in (0.5, 0.9, 0.99, 1))
    print(f"{at_rest:.0f} MiB at rest; growth of {len(paths)} files in MiB: {shares}")
    for i in np.argsort(-grown_N)[:10]:
        print(f"{grown_N[i]:6.0f} {paths[i]}")
