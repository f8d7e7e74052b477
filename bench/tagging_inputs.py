"""What bench_tagging.py and its like measure on: python bench/tagging_inputs.py PLACE SONGS N…

Makes in PLACE, for each N, the folder tracks-N of copies of long tracks and its manifest, and two models. In a process
of its own: the largest memory of a measured process counts what its parent had when it was started.
"""

import itertools
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import soundfile
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.synthetic.catalogue import CatalogueConfig
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference import artifact
from mtl_core.inference.artifact import Artifact
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.model.recipes import recipe
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.make_demo_catalogue import make_demo_catalogue
from mtl_core.storage.location import Location


def long_tracks(folder: Path, temporary: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".mp3", ".ogg"))
    found = [path for path in found if soundfile.info(path).duration >= 120]
    if not found:
        config = CatalogueConfig(languages=2, artists_per_language=2, songs_per_artist=4, song_s=180)
        make_demo_catalogue(config, Location(str(temporary / "generated")))
        found = sorted(path for path in temporary.rglob("*") if path.suffix in (".mp3", ".ogg"))
    return found


def copies(tracks: list[Path], n: int, folder: Path) -> Path:
    folder.mkdir()
    for number, path in zip(range(n), itertools.cycle(tracks), strict=False):
        shutil.copyfile(path, folder / f"{number:05}{path.suffix}")
    build_manifest(Location(str(folder)), None, Location(f"{folder}.parquet"))
    return folder


def models(folder: Path) -> None:
    """Untrained models of the recipes `paper` and `best`: their tags do not matter here, their cost does."""
    torch.manual_seed(0)
    names = {"artist": tuple(f"a{i:02}" for i in range(68)), "language": tuple(f"l{i:02}" for i in range(17))}
    classes = {task: len(labels) for task, labels in names.items()}
    vocabularies = {task: Vocabulary(labels) for task, labels in names.items()}
    splits = pa.table({"track_id": ["a"], "split": ["train"]})
    for name in ("paper", "best"):
        model = MultitaskCNN(ModelConfig(classes=classes, trunk=recipe(name).trunk)).eval()
        untrained = Artifact(model=model, front_end=FrontEnd(), vocabularies=vocabularies)
        artifact.save_artifact(untrained, splits, Location(str(folder / name)))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    counts = sys.argv[3:]
    found = long_tracks(Path(sys.argv[2]), place) if counts else []
    for count in counts:
        copies(found, int(count), place / f"tracks-{count}")
    models(place)
