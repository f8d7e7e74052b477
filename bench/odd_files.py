"""What becomes of each file of a folder: python bench/odd_files.py FOLDER

Prints a row a file: the seconds that ffmpeg decodes of it, packet by packet, the seconds found here, or the error. Ends
with the number of files of each outcome, and of those whose lengths differ by more than a millisecond.
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders.sound_files import decoded_s

from mtl_core.audio.decoding.decode import open_sound
from mtl_core.errors import TrackError


def main(folder: Path) -> None:
    outcomes: Counter[str] = Counter()
    differ = 0
    print("| file | ffmpeg, s | here |\n| --- | --- | --- |")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        expected_s = decoded_s(path)
        try:
            with path.open("rb") as file:
                sound = open_sound(file)
        except TrackError as error:
            outcome = here = error.error
            differ += expected_s >= 0.1
        else:
            found_s = sound.n_frames / sound.rate_hz
            outcome, here = "decoded", f"{found_s:.3f} s"
            differ += abs(found_s - expected_s) > 1e-3
        outcomes[outcome] += 1
        print(f"| {path.name} | {expected_s:.3f} | {here} |")
    print(f"\n{dict(outcomes)}; {differ} differ from ffmpeg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
