"""Recipes side by side on real singers: python bench/real_recipes.py AUDIO OUT [--recipes paper best] [--seeds 0 1 2]

AUDIO is that of `real_audio.py`. Runs two experiments on its set `gtsinger` with `run_experiment`, which prints the
paired gains over `paper`:

- artist and language, leaving one song out (`--split kfold --group-column song`, as many folds as the singer with most
  songs has songs);
- language on singers that were not trained on (`--split artist`), without the languages that have one singer.

Versions of one song count as one in the intervals. Stopped, the same command continues. Most of its time is the
trainings: recipes x seeds x folds x task sets.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from real_audio import job

from mtl_core.dataset import manifest
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.storage.location import Location


def prepare(audio: Path, out: Path) -> int:
    """Make the mels of the set, and of its languages with several singers.

    Returns:
        The number of songs of the singer with most songs.
    """
    job("build_manifest", "--catalogue", audio, "--labels", audio / "labels.csv", "--out", out / "all.parquet")
    tracks = manifest.read(Location(str(out / "all.parquet")))
    sung = tracks.filter(pc.equal(tracks["set"], "gtsinger"))
    rows = sung.select(["artist", "language", "song"]).to_pylist()
    singers = defaultdict(set)
    for row in rows:
        singers[row["language"]].add(row["artist"])
    several = [language for language, names in singers.items() if len(names) > 1]
    for name, chosen in (("all", sung), ("several", sung.filter(pc.is_in(sung["language"], pa.array(several))))):
        mels = out / f"mels-{name}"
        if not mels.exists() or len(open_mel_dataset(Location(str(mels))).tracks) != len(chosen):
            manifest.write(chosen, Location(str(out / f"{name}.chosen.parquet")))
            job("extract_mels", "--manifest", out / f"{name}.chosen.parquet", "--out", mels)
    return max(Counter(artist for artist, _ in {(row["artist"], row["song"]) for row in rows}).values())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("audio", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--recipes", nargs="+", default=["paper", "best"])
    arguments.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    arguments.add_argument("--epochs", nargs="*", default=[], help="of every recipe; default: the recipe's own")
    flags = arguments.parse_args()
    out = flags.out.absolute()
    n_songs = prepare(flags.audio.absolute(), out)
    epochs = ("--epochs", *flags.epochs) if flags.epochs else ()
    common = ("--recipes", *flags.recipes, "--seeds", *flags.seeds, *epochs)
    split = ("--split", "kfold", "--folds", *range(n_songs), "--group-column", "song", "--tasks", "both")
    job("run_experiment", "--mels", out / "mels-all", "--out", out / "songs", *split, *common)
    job("run_experiment", "--mels", out / "mels-several", "--out", out / "singers", "--split", "artist",
        "--tasks", "language", *common)  # fmt: skip


if __name__ == "__main__":
    main()
