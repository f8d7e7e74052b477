"""Making the demo catalogue: what it writes, what it replaces, and what it refuses."""

import csv
import io
import json

import numpy as np
import pytest
import soundfile

from mtl_core.dataset.synthetic.catalogue import CatalogueConfig, labels_csv, pcm, plan_songs
from mtl_core.errors import InputError
from mtl_core.pipelines.make_demo_catalogue import make_demo_catalogue
from mtl_core.storage.location import Location

CONFIG = CatalogueConfig(languages=2, artists_per_language=1, songs_per_artist=4, song_s=3)


def _audio_paths(out: Location) -> set[str]:
    return {path for path, _ in out.walk() if path.startswith("audio/")}


def test_the_catalogue_has_the_planned_songs_on_any_store(root, local_ray):
    out = Location(root) / "catalogue"
    summary = make_demo_catalogue(CONFIG, out)
    tracks = plan_songs(CONFIG)
    assert (out / "labels.csv").read_bytes() == labels_csv(tracks)
    rows = list(csv.DictReader(io.StringIO((out / "labels.csv").read_bytes().decode())))
    assert {row["path"] for row in rows} == _audio_paths(out)
    assert (summary.songs, summary.artists, summary.languages) == (8, 2, 2)
    assert summary.size_bytes == sum(len((out / row["path"]).read_bytes()) for row in rows)
    track = next(track for track in tracks if track.encoding[1] == "PCM_24")
    decoded, _ = soundfile.read(io.BytesIO((out / track.path).read_bytes()), dtype="float32", always_2d=True)
    np.testing.assert_allclose(decoded, pcm(track), atol=2**-23)  # a worker makes the same samples as this process


def test_an_earlier_catalogue_is_replaced_completely(tmp_path, local_ray):
    out = Location(str(tmp_path / "catalogue"))
    make_demo_catalogue(CONFIG, out)
    other = CatalogueConfig(languages=1, artists_per_language=1, songs_per_artist=1, song_s=3, seed=1)
    make_demo_catalogue(other, out)
    assert _audio_paths(out) == {track.path for track in plan_songs(other)}
    assert json.loads((out / "catalogue.json").read_bytes())["seed"] == 1


def test_a_folder_with_other_files_is_refused_and_not_changed(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "mine.wav").write_bytes(b"precious")
    with pytest.raises(InputError, match="not empty"):
        make_demo_catalogue(CONFIG, Location(str(tmp_path)))
    assert (tmp_path / "audio" / "mine.wav").read_bytes() == b"precious"
