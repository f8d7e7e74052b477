"""The overhead of the job on very small files: python bench/bench_small_files.py [N]

Tags N generated files of about a second (default 5,000: wav, flac and ogg) and a fifth of them. The difference is the
CPU seconds of the whole job without start-up. Then measures fetch, decode, mel and model of the same files in a plain
loop of one process, without Ray, shards, and files of tags and results. Prints the share of those four stages.

Takes about 2 minutes with 5,000 files (estimated).
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from process_tree import adopt_orphans, run

ROOT = Path(__file__).parents[1]
RATE_HZ = 16_000


def write_files(folder: Path, n: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(n):
        suffix = ("wav", "flac", "ogg")[number % 3]
        samples = random.standard_normal(int(RATE_HZ * random.uniform(0.7, 1.3))) * 0.1
        soundfile.write(folder / f"{number:05}.{suffix}", samples, RATE_HZ)


def print_stages(manifest: str, model: str) -> None:
    """Print the CPU seconds a track of fetch, decode, mel and model, in this process and its decoder."""
    import pyarrow.parquet as pq

    from mtl_core.audio.track_reader import Track, TrackReader
    from mtl_core.inference.openvino_engine import load_cpu_model
    from mtl_core.storage.location import Location

    cpu_model = load_cpu_model(Location(model))
    tagger = cpu_model.tagger()
    reader = TrackReader(cpu_model.front_end)
    rows = pq.read_table(manifest).to_pylist()

    def tag(tracks: list) -> None:
        for track in reader.read(tracks):
            assert isinstance(track, Track)
            tagger.tag([track], model_id="", run_id="")

    tag(rows[:100])
    reader.timer.delta()
    tag(rows)
    print(reader.timer.delta().cpu_s / len(rows))


def main(n: int = 5000) -> None:
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = Path(temporary)
        write_files(place / "small", n)
        write_files(place / "few", n // 5)
        subprocess.run([sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, ""], check=True)
        usage = {}
        for name in ("few", "small"):
            manifest = str(place / f"{name}.parquet")
            build = [sys.executable, str(ROOT / "jobs" / "build_manifest.py"), "--catalogue", str(place / name)]
            subprocess.run([*build, "--out", manifest], check=True, stdout=subprocess.DEVNULL)
            tag = [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--model", str(place / "paper")]
            usage[name] = run([*tag, "--manifest", manifest, "--out", str(place / f"out-{name}")])
            print(f"{name}: {usage[name].wall_s:.1f} s wall, {usage[name].cpu_s:.1f} s CPU", flush=True)
        file_cpu_s = (usage["small"].cpu_s - usage["few"].cpu_s) / (n - n // 5)
        stages = run([sys.executable, __file__, "--stages", str(place / "small.parquet"), str(place / "paper")])
        stages_cpu_s = float(stages.stdout)
        print(
            f"CPU milliseconds a file: {1000 * file_cpu_s:.2f}, of which fetch, decode, mel and model "
            f"{1000 * stages_cpu_s:.2f}: {stages_cpu_s / file_cpu_s:.1%}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        print_stages(*sys.argv[2:4])
    else:
        main(*(int(value) for value in sys.argv[1:2]))
