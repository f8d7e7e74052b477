"""Peaks of memory: python bench/bench_memory.py [MANY [FOLDER]]

A worker with its decoder child on long tracks (FOLDER: the real songs beside the checkout by default, else generated
ones), and with a wav of three hours among them; the driver on 1,000 and on MANY planned tracks (default 100,000) whose
decoding is stubbed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from process_tree import adopt_orphans, run

ROOT = Path(__file__).parents[1]
SONGS = ROOT.parent / "shared" / "audio" / "songs"
HOURS, RATE_HZ = 3, 44_100


def a_long_wav(path: Path) -> None:
    """Stereo noise, 16 bits, 1.9 GB."""
    minute = np.random.default_rng(0).integers(-3000, 3000, (60 * RATE_HZ, 2), np.int16)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as sound:
        for _ in range(60 * HOURS):
            sound.write(minute)


def many(place: Path, n: int, uri: str) -> Path:
    """A manifest of n tracks, all of them one file."""
    path = place / f"many-{n}.parquet"
    pq.write_table(pa.table({"track_id": [f"{i:09}.mp3" for i in range(n)], "uri": [uri] * n}), path)
    return path


def main(n: int = 100_000, folder: Path = SONGS) -> None:
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        subprocess.run(
            [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), "28"], check=True
        )
        tag = [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--model", str(place / "paper")]
        spent = run([*tag, "--manifest", str(place / "tracks-28.parquet"), "--out", str(place / "out-long")])
        print(f"worker and decoder, 28 long tracks: {spent.worker_mib:.0f} MiB; driver {spent.driver_mib:.0f} MiB")
        wav = place / "tracks-28" / "hours.wav"
        a_long_wav(wav)
        rows = pq.read_table(place / "tracks-28.parquet").select(["track_id", "uri"]).slice(0, 8)
        rows = pa.concat_tables([rows, pa.table({"track_id": ["hours.wav"], "uri": [str(wav)]}, rows.schema)])
        pq.write_table(rows, place / "hours.parquet")
        spent = run([*tag, "--manifest", str(place / "hours.parquet"), "--out", str(place / "out-hours")])
        print(
            f"worker and decoder, with a wav of {HOURS} hours: {spent.worker_mib:.0f} MiB; {spent.said.splitlines()[0]}"
        )
        wav.unlink()
        for count in (1000, n):
            manifest = many(place, count, rows["uri"][0].as_py())
            spent = run(
                [sys.executable, str(ROOT / "bench" / "stubbed_night.py"), str(manifest), str(place / "best"),
                 str(place / f"out-{count}")],
                PYTHONPATH=str(ROOT / "bench"),
            )  # fmt: skip
            print(
                f"{count:,} planned tracks, decoding stubbed: driver {spent.driver_mib:.0f} MiB, "
                f"worker {spent.worker_mib:.0f} MiB, {spent.wall_s:.0f} s wall, {spent.cpu_s:.0f} s CPU, {spent.said}",
                flush=True,
            )


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]), *(Path(value) for value in sys.argv[2:3]))
