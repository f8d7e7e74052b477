"""Peaks of resident memory: python bench/bench_memory.py [TRACKS [FOLDER]]

Measures
- a worker with its decoder process on long tracks, on long tracks and a wav of three hours, and on flac files of 30 MB
  from S3, which are downloaded ahead;
- the driver on 1,000 and on TRACKS planned tracks (default 100,000), with decoding stubbed.

FOLDER holds the long tracks, as in bench_tagging.py. Takes some minutes with 100,000 tracks (not measured), and 2 GB of
temporary disk for the wav.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from bench_s3 import STORE, server
from bench_tagging import ROOT, SONGS
from process_tree import adopt_orphans, run

from mtl_core.storage.location import Location

HOURS, RATE_HZ = 3, 44_100


def write_long_wav(path: Path) -> None:
    """Stereo noise of HOURS hours, 16 bits: 1.9 GB."""
    minute = np.random.default_rng(0).integers(-3000, 3000, (60 * RATE_HZ, 2), np.int16)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as sound:
        for _ in range(60 * HOURS):
            sound.write(minute)


def write_manifest(folder: Path, n: int, uri: str) -> Path:
    """A manifest of n tracks that are all the same file."""
    path = folder / f"many-{n}.parquet"
    pq.write_table(pa.table({"track_id": [f"{i:09}.mp3" for i in range(n)], "uri": [uri] * n}), path)
    return path


def write_flac_files(folder: Path, n: int) -> Path:
    """Upload n flac files of 4 minutes of noise, 30 MB each; returns their manifest."""
    noise = np.random.default_rng(0).integers(-3000, 3000, (240 * RATE_HZ, 2), np.int16)
    soundfile.write(folder / "noise.flac", noise, RATE_HZ, "PCM_16")
    data = (folder / "noise.flac").read_bytes()
    uris = [(STORE / f"{number:02}.flac").uri for number in range(n)]
    for uri in uris:
        Location(uri).write_bytes(data)
    path = folder / "flac.parquet"
    pq.write_table(pa.table({"track_id": uris, "uri": uris, "size_bytes": [len(data)] * n}), path)
    return path


def main(n: int = 100_000, folder: Path = SONGS) -> None:
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        subprocess.run(
            [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), "28"], check=True
        )
        tag = [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--model", str(place / "paper")]
        usage = run([*tag, "--manifest", str(place / "tracks-28.parquet"), "--out", str(place / "out-long")])
        print(f"worker and decoder, 28 long tracks: {usage.worker_mib:.0f} MiB; driver {usage.driver_mib:.0f} MiB")
        wav = place / "tracks-28" / "hours.wav"
        write_long_wav(wav)
        rows = pq.read_table(place / "tracks-28.parquet").select(["track_id", "uri"]).slice(0, 8)
        rows = pa.concat_tables([rows, pa.table({"track_id": ["hours.wav"], "uri": [str(wav)]}, rows.schema)])
        pq.write_table(rows, place / "hours.parquet")
        usage = run([*tag, "--manifest", str(place / "hours.parquet"), "--out", str(place / "out-hours")])
        first_line = usage.stdout.splitlines()[0]
        print(f"worker and decoder, with a wav of {HOURS} hours: {usage.worker_mib:.0f} MiB; {first_line}")
        wav.unlink()
        with server():
            manifest = write_flac_files(place, 24)
            usage = run([*tag, "--manifest", str(manifest), "--out", str(STORE / "out")])
            print(f"worker and decoder, 24 flac files of 30 MB from S3: {usage.worker_mib:.0f} MiB")
        for count in (1000, n):
            manifest = write_manifest(place, count, rows["uri"][0].as_py())
            usage = run(
                [sys.executable, str(ROOT / "bench" / "stubbed_night.py"), str(manifest), str(place / "best"),
                 str(place / f"out-{count}")],
                PYTHONPATH=str(ROOT / "bench"),
            )  # fmt: skip
            print(
                f"{count:,} planned tracks, decoding stubbed: driver {usage.driver_mib:.0f} MiB, "
                f"worker {usage.worker_mib:.0f} MiB, {usage.wall_s:.0f} s wall, {usage.cpu_s:.0f} s CPU, "
                f"{usage.stdout}",
                flush=True,
            )


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]), *(Path(value) for value in sys.argv[2:3]))
