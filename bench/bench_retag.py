"""A night from embeddings alone: python bench/bench_retag.py [MILLIONS [ARTISTS [FOLDER]]]

Makes a table of MILLIONS million tracks (default 1) whose embeddings have the trunk of a model with ARTISTS artists
(default 10,000), and tags them with that model. Prints wall and CPU seconds, the peak of resident memory of the largest
process, and tracks a second. There is no audio: a file that was opened would fail. A FOLDER is kept; the table in it is
used again, as long as it is of the same size. Ten million take 15 GB of disk.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import torch
from bench_tables import commit_rows, make_manifest, tag_rows
from process_tree import adopt_orphans, run

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.artifacts.artifact import Artifact, load_artifact, save_artifact, trunk_id
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.cosine_lda import SCALE
from mtl_core.storage.location import Location

JOB = Path(__file__).parents[1] / "jobs" / "tag_catalogue.py"
PARTS = {"artist": 80, "language": 16}


def make_model(folder: Location, artists: int) -> Artifact:
    """A model with heads of random class means."""
    labels = {
        "artist": tuple(f"artist {i:06}" for i in range(artists)),
        "language": tuple(f"l{i:02}" for i in range(17)),
    }
    torch.manual_seed(0)
    network = MultitaskCNN(ModelConfig(classes={task: len(names) for task, names in labels.items()}, parts=PARTS))
    first = 0
    with torch.no_grad():
        for task, size in PARTS.items():
            mean_CP = torch.nn.functional.normalize(torch.randn(len(labels[task]), size), dim=1)
            network.classifiers[task].weight.zero_()
            network.classifiers[task].weight[:, first : first + size] = SCALE * mean_CP
            first += size
    model = Artifact(
        model=network,
        front_end=FrontEnd(sampling="spread", segments=32),
        vocabularies={task: Vocabulary(names) for task, names in labels.items()},
    )
    save_artifact(model, pa.table({"track_id": pa.array([], pa.string()), "split": pa.array([], pa.string())}), folder)
    return load_artifact(folder)


def main(millions: float, artists: int, folder: Path) -> None:
    at, n = Location(str(folder)), int(millions * 1_000_000)
    model = make_model(at / "model", artists)
    if not (at / "manifest.parquet").exists():
        make_manifest(at / "manifest.parquet", n, n_changed=0)
        commit_rows(at / "out", tag_rows(0, n, trunk_id=trunk_id(model)), run_id="night-0")
    flags = {"--manifest": "manifest.parquet", "--model": "model", "--out": "out"}
    places = [text for flag, name in flags.items() for text in (flag, str(folder / name))]
    usage = run([sys.executable, str(JOB), *places])
    print(usage.stdout)
    print(
        f"{n:,} tracks, {artists:,} artists: {usage.wall_s:.0f} s, {usage.cpu_s:.0f} CPU s, largest process "
        f"{usage.largest_mib / 1024:.2f} GiB, driver {usage.driver_mib / 1024:.2f}, {n / usage.wall_s:,.0f} tracks/s"
    )


if __name__ == "__main__":
    adopt_orphans()
    given = dict(enumerate(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as temporary:
        main(float(given.get(0, 1)), int(given.get(1, 10_000)), Path(given.get(2, temporary)))
