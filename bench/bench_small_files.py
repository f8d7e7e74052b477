"""What the machinery costs around very small files: python bench/bench_small_files.py [N]

N files of about a second (default 5,000: wav, flac and ogg, generated). Of the CPU seconds of the whole job, start-up
excluded (the difference between N files and a fifth of them), which share is in fetch, decode, mel and model? Those
four are measured on the same files in a plain loop of one process, without Ray, shards, files of tags and marks.
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


def the_four_stages(manifest: str, model: str) -> None:
    """Prints the CPU seconds a track of fetch, decode, mel and model, this process's and its decoder's."""
    import pyarrow.parquet as pq

    from mtl_core.audio.decoder_process import DecoderLimits
    from mtl_core.audio.track_reader import Track, TrackReader
    from mtl_core.inference.openvino_engine import load_cpu_model
    from mtl_core.inference.tagger import Tagger
    from mtl_core.storage.location import Location

    network = load_cpu_model(Location(model))
    tagger = Tagger(network.engine(), network.vocabularies, network.aggregation)
    reader = TrackReader(network.front_end, DecoderLimits())
    rows = pq.read_table(manifest).to_pylist()

    def tag(some: list) -> None:
        for track in reader.read(some):
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
        spent = {}
        for name in ("few", "small"):
            manifest = str(place / f"{name}.parquet")
            build = [sys.executable, str(ROOT / "jobs" / "build_manifest.py"), "--catalogue", str(place / name)]
            subprocess.run([*build, "--out", manifest], check=True, stdout=subprocess.DEVNULL)
            tag = [sys.executable, str(ROOT / "jobs" / "tag_catalogue.py"), "--model", str(place / "paper")]
            spent[name] = run([*tag, "--manifest", manifest, "--out", str(place / f"out-{name}")])
            print(f"{name}: {spent[name].wall_s:.1f} s wall, {spent[name].cpu_s:.1f} s CPU", flush=True)
        whole = (spent["small"].cpu_s - spent["few"].cpu_s) / (n - n // 5)
        stages = run([sys.executable, __file__, "--stages", str(place / "small.parquet"), str(place / "paper")])
        four = float(stages.said)
        print(
            f"CPU milliseconds a file: {1000 * whole:.2f}, of which fetch, decode, mel and model {1000 * four:.2f}: "
            f"{four / whole:.1%}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        the_four_stages(*sys.argv[2:4])
    else:
        main(*(int(value) for value in sys.argv[1:2]))
