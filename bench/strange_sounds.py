"""What a model says of sounds that are unlike its catalogue: python bench/strange_sounds.py MODEL [FOLDER…]

Makes silence, white noise at three levels, pink noise and pure tones of 100 to 4,000 Hz, 10 s each. Takes the audio
files of each FOLDER as they are, and 1 s out of the middle of each that is longer than 10 s. Prints for each kind of
sound how many tracks got an artist and a language. A file whose artist is a class of the model is no test of it.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from mtl_core.audio.source import is_audio_file
from mtl_core.inference.file_tagger import FileTagger

RATE_HZ, SECONDS = 22_050, 10


def made_sounds() -> dict[str, dict[str, np.ndarray]]:
    """kind -> name -> samples."""
    rng = np.random.default_rng(0)
    n = RATE_HZ * SECONDS
    white = rng.standard_normal(n)
    spectrum = np.fft.rfft(rng.standard_normal(n)) / np.sqrt(np.maximum(np.arange(n // 2 + 1), 1))
    pink = np.fft.irfft(spectrum, n)
    time_s = np.arange(n) / RATE_HZ
    return {
        "silence": {"silence": np.zeros(n)},
        "white noise": {f"white {level}": level * white for level in (0.003, 0.03, 0.2)},
        "pink noise": {"pink": 0.2 * pink / pink.std()},
        "pure tones": {f"tone {hz}": 0.3 * np.sin(2 * np.pi * hz * time_s) for hz in (100, 440, 1000, 4000)},
    }


def middle_second(path: Path, out: Path) -> bool:
    """Write 1 s out of the middle of a file; whether it is longer than 10 s and libsndfile reads it."""
    try:
        with soundfile.SoundFile(path) as sound:
            if sound.frames < 10 * sound.samplerate:
                return False
            sound.seek(sound.frames // 2)
            soundfile.write(out, sound.read(sound.samplerate), sound.samplerate)
    except soundfile.LibsndfileError:
        return False
    return True


def main() -> None:
    model, *folders = sys.argv[1:]
    kinds: dict[str, list[Path]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind, sounds in made_sounds().items():
            for name, samples in sounds.items():
                path = Path(temporary) / f"{name}.wav"
                soundfile.write(path, samples, RATE_HZ)
                kinds.setdefault(kind, []).append(path)
        for folder in map(Path, folders):
            files = sorted(path for path in folder.rglob("*") if path.is_file() and is_audio_file(path.name))
            kinds[f"{folder.name}, whole"] = files
            cuts = [(path, Path(temporary) / f"{folder.name}-{i}.wav") for i, path in enumerate(files)]
            kinds[f"{folder.name}, 1 s of each"] = [out for path, out in cuts if middle_second(path, out)]
        print("| sound | tracks | an artist | a language | failed |\n| --- | ---: | ---: | ---: | ---: |")
        with FileTagger(model) as tagger:
            for kind, paths in kinds.items():
                rows = tagger.tag(paths)
                failed = sum("stage" in row for row in rows)
                counts = [sum(row.get(task) is not None for row in rows) for task in ("artist", "language")]
                print(f"| {kind} | {len(rows)} | {counts[0]} | {counts[1]} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
