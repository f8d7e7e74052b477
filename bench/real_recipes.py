"""Recipes side by side on real singers: python bench/real_recipes.py AUDIO OUT [--recipes paper best] [--seeds 0 1 2]

AUDIO is that of `real_audio.py`; of its set `gtsinger` two experiments are made, both of `run_experiment`, which prints
the paired gains over `paper`: artist and language leaving one song out (`--split kfold --group-column song`, as many
folds as the singer with most songs has), and language on singers that were never heard (`--split artist`), without
the languages that have one singer. Versions of one song are one in the intervals. The same command goes on where it was
stopped.
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
    """Mels of the set, and without the languages of one singer; returns the most songs of a singer."""
    job("build_manifest", "--catalogue", audio, "--labels", audio / "labels.csv", "--out", out / "all.parquet")
    everything = manifest.read(Location(str(out / "all.parquet")))
    sung = everything.filter(pc.equal(everything["set"], "gtsinger"))
    rows = sung.select(["artist", "language", "song"]).to_pylist()
    singers = defaultdict(set)
    for row in rows:
        singers[row["language"]].add(row["artist"])
    several = [language for language, of in singers.items() if len(of) > 1]
    for name, tracks in (("all", sung), ("several", sung.filter(pc.is_in(sung["language"], pa.array(several))))):
        mels = out / f"mels-{name}"
        if not mels.exists() or len(open_mel_dataset(Location(str(mels))).tracks) != len(tracks):
            manifest.write(tracks, Location(str(out / f"{name}.of.parquet")))
            job("extract_mels", "--manifest", out / f"{name}.of.parquet", "--out", mels)
    return max(Counter(artist for artist, _ in {(row["artist"], row["song"]) for row in rows}).values())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("audio", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--recipes", nargs="+", default=["paper", "best"])
    arguments.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    arguments.add_argument("--epochs", nargs="*", default=[], help="of every recipe; by default its own")
    asked = arguments.parse_args()
    out = asked.out.absolute()
    songs = prepare(asked.audio.absolute(), out)
    common = (
        "--recipes",
        *asked.recipes,
        "--seeds",
        *asked.seeds,
        *(("--epochs", *asked.epochs) if asked.epochs else ()),
    )
    split = ("--split", "kfold", "--folds", *range(songs), "--group-column", "song", "--tasks", "both")
    job("run_experiment", "--mels", out / "mels-all", "--out", out / "songs", *split, *common)
    job("run_experiment", "--mels", out / "mels-several", "--out", out / "singers", "--split", "artist",
        "--tasks", "language", *common)  # fmt: skip


if __name__ == "__main__":
    main()
