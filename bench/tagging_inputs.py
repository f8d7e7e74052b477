"""Make the inputs of the tagging benchmarks: python bench/tagging_inputs.py FOLDER SONGS N…

Writes into FOLDER, for each N, the folder tracks-N of N long tracks and its manifest tracks-N.parquet, and the models
`paper`, `best` and `spread`, which is `best` with segments all over the recording. They are not trained. The tracks are
copies of the mp3, ogg, wav and flac files of 120 s or more in SONGS, or of generated ones where there are none.

The benchmarks run this in a process of its own, because the peak memory of a measured process includes what its parent
had when it was started.
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
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.model.cnn import MultitaskCNN, with_cosine_heads
from mtl_core.model.cosine_lda import fit_cosine_lda
from mtl_core.model.embedding_moments import value_moments
from mtl_core.model.recipes import recipe
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.make_demo_catalogue import make_demo_catalogue
from mtl_core.storage.location import Location

SUFFIXES = (".mp3", ".ogg", ".wav", ".flac")
#: name -> its recipe and its sampling
MODELS = {
    "paper": ("paper", FrontEnd()),
    "best": ("best", FrontEnd()),
    "spread": ("best", FrontEnd(sampling="spread", segments=32)),
}


def long_tracks(songs: Path, folder: Path) -> list[Path]:
    """The recordings of 120 s or more in `songs`; where there are none, generated ones in `folder`."""
    paths = [path for path in _recordings(songs) if soundfile.info(path).duration >= 120]
    if not paths:
        config = CatalogueConfig(languages=2, artists_per_language=2, songs_per_artist=4, song_s=180)
        make_demo_catalogue(config, Location(str(folder / "generated")))
        paths = _recordings(folder)
    return paths


def _recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)


def copy_tracks(tracks: list[Path], n: int, folder: Path) -> None:
    """Copy the tracks in turn until there are n, and write their manifest beside the folder."""
    folder.mkdir()
    for number, path in zip(range(n), itertools.cycle(tracks), strict=False):
        shutil.copyfile(path, folder / f"{number:05}{path.suffix}")
    build_manifest(Location(str(folder)), None, Location(f"{folder}.parquet"))


def save_models(folder: Path) -> None:
    """Save untrained models of the paper's number of classes: they cost what trained ones cost.

    Heads in closed form are fitted to random mels.
    """
    torch.manual_seed(0)
    labels = {"artist": tuple(f"a{i:02}" for i in range(68)), "language": tuple(f"l{i:02}" for i in range(17))}
    vocabularies = {task: Vocabulary(names) for task, names in labels.items()}
    splits = pa.table({"track_id": ["a"], "split": ["train"]})
    classes = {task: len(names) for task, names in labels.items()}
    track_N = torch.arange(136)
    batch = {"mel": 2 * torch.rand(len(track_N), 187, 96), "track": track_N}
    targets = {task: track_N.numpy() % n for task, n in classes.items()}
    for name, (recipe_name, front_end) in MODELS.items():
        numbers = recipe(recipe_name)
        model = MultitaskCNN(numbers.model_config(classes)).eval()
        if numbers.heads == "cosine_lda":
            moments = value_moments(model, [batch], len(track_N), front_end, sample_every=1)
            fitted = fit_cosine_lda(moments, targets, classes, model.config.trunk_output)
            model = with_cosine_heads(model, fitted).eval()
        untrained = Artifact(model=model, front_end=front_end, vocabularies=vocabularies)
        artifact.save_artifact(untrained, splits, Location(str(folder / name)))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    counts = sys.argv[3:]
    tracks = long_tracks(Path(sys.argv[2]), place) if counts else []
    for count in counts:
        copy_tracks(tracks, int(count), place / f"tracks-{count}")
    save_models(place)
