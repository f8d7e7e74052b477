"""The filter bank is librosa's, survives its bytes, and is not needed from librosa by anyone who reads it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest

from mtl_core.audio.filter_bank import default_filter_bank, make_filter_bank, pack, unpack
from mtl_core.audio.front_end import FrontEnd, Segments, define_front_end
from mtl_core.audio.mel import MelConfig

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"


def librosa_filter_bank(**parameters: float) -> np.ndarray:
    return librosa.filters.mel(**({"sr": 16_000, "n_fft": 512, "n_mels": 96, "fmin": 0, "fmax": 8000} | parameters))


def test_the_stored_default_is_what_librosa_makes_today() -> None:
    stored_FK = default_filter_bank(MelConfig())
    assert stored_FK.shape == (96, 257) and stored_FK.dtype == np.float32 and np.count_nonzero(stored_FK) == 502
    np.testing.assert_allclose(stored_FK, librosa_filter_bank(), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(make_filter_bank(MelConfig()), librosa_filter_bank())


def test_other_parameters_reach_librosa() -> None:
    config = MelConfig(n_fft=1024, bands=64, fmin_hz=50, fmax_hz=4000, frames=100)
    expected = librosa_filter_bank(n_fft=1024, n_mels=64, fmin=50, fmax=4000)
    np.testing.assert_array_equal(make_filter_bank(config), expected)
    config = MelConfig(sample_rate_hz=22050, fmin_hz=1200, fmax_hz=11025, bands=20)
    expected = librosa_filter_bank(sr=22050, n_mels=20, fmin=1200, fmax=11025)
    np.testing.assert_array_equal(make_filter_bank(config), expected)


def test_the_default_serves_every_config_with_the_same_bands_and_no_other() -> None:
    assert default_filter_bank(MelConfig(compression_factor=1.0)) is default_filter_bank(MelConfig())
    with pytest.raises(ValueError, match="no filter bank is stored"):
        default_filter_bank(MelConfig(fmax_hz=7000))


def test_a_bank_survives_its_bytes() -> None:
    filter_bank_FK = default_filter_bank(MelConfig())
    np.testing.assert_array_equal(unpack(pack(filter_bank_FK)), filter_bank_FK)
    assert pack(filter_bank_FK) == pack(filter_bank_FK.copy()) and len(pack(filter_bank_FK)) < 4000


@pytest.mark.parametrize("data", [b"", b"words", pack(np.zeros((2, 2), np.float32))[:-30]])
def test_bytes_without_a_bank_raise(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(data)


@pytest.fixture
def front_end() -> FrontEnd:
    """One whose bank neither this package nor librosa holds."""
    return replace(FrontEnd(), filter_bank=2 * FrontEnd().filter_bank)


def _silent_track() -> Any:
    from mtl_core.audio.track_reader import Track

    segments = Segments(mel_STF=np.zeros((1, 187, 96), np.float32), start_s=np.zeros(1))
    return Track({"track_id": "a", "artist": "b", "language": "c"}, segments, 3.0)


def test_a_bank_travels_beside_the_mels(front_end: FrontEnd, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from mtl_core.dataset.mel_dataset import open_mel_dataset
    from mtl_core.dataset.mel_files import encode_mels, mels_schema
    from mtl_core.schema import MANIFEST
    from mtl_core.storage.location import Location

    (tmp_path / "mels.parquet").write_bytes(encode_mels([_silent_track()], mels_schema(front_end, MANIFEST)))
    dataset = open_mel_dataset(Location(str(tmp_path)))
    assert dataset.front_end == front_end
    np.testing.assert_array_equal(dataset.front_end.filter_bank, front_end.filter_bank)


def test_mels_of_another_front_end_without_their_bank_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from mtl_core.dataset.mel_dataset import open_mel_dataset
    from mtl_core.dataset.mel_files import encode_mels, mels_schema
    from mtl_core.errors import InputError
    from mtl_core.schema import FILTER_BANK, MANIFEST
    from mtl_core.storage.location import Location

    schema = mels_schema(define_front_end(mel=MelConfig(fmin_hz=100)), MANIFEST)
    metadata = {key: value for key, value in schema.metadata.items() if key != FILTER_BANK}
    (tmp_path / "mels.parquet").write_bytes(encode_mels([_silent_track()], schema.with_metadata(metadata)))
    with pytest.raises(InputError, match=r"no filter bank is stored for .*fmin_hz=100"):
        open_mel_dataset(Location(str(tmp_path)))


def test_a_bank_travels_in_the_artifact_and_leaves_its_model_id_alone(front_end: FrontEnd, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from mtl_core.errors import InputError
    from mtl_core.inference.artifacts.artifact import load_artifact, load_splits, save_artifact
    from mtl_core.inference.openvino_engine import load_cpu_model
    from mtl_core.storage.location import Location

    old, folder = Location(str(FIXTURES / "best")), Location(str(tmp_path))
    np.testing.assert_array_equal(load_artifact(old).front_end.filter_bank, FrontEnd().filter_bank)
    model_id = save_artifact(replace(load_artifact(old), front_end=front_end), load_splits(old), folder)
    assert model_id == load_cpu_model(old).model_id == load_cpu_model(folder).model_id
    for loaded in (load_artifact(folder), load_cpu_model(folder)):
        np.testing.assert_array_equal(loaded.front_end.filter_bank, front_end.filter_bank)
    (tmp_path / "filter_bank.npz").unlink()
    for load in (load_artifact, load_cpu_model):
        with pytest.raises(InputError, match=r"no file filter_bank\.npz"):
            load(folder)


def test_a_worker_and_a_tagging_node_need_no_librosa() -> None:
    """Where importing librosa or numba fails, a model and mels of version 0.1 are read, and the tag is that of 0.1."""
    pytest.importorskip("openvino")
    pytest.importorskip("ray")
    script = f"""
import sys
sys.modules["librosa"] = sys.modules["numba"] = None
import numpy as np
from mtl_core.audio.track_reader import TrackReader
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.storage.location import Location
import mtl_core.pipelines.extract_mels, mtl_core.pipelines.tag_catalogue
import pyarrow.parquet as pq

root = {str(FIXTURES)!r}
model = load_cpu_model(Location(root + "/best"))
assert open_mel_dataset(Location(root + "/mels")).front_end == model.front_end
name = "rosa-glenn/restless-island/01-open-wave.ogg"
uri = root + "/catalogue/audio/" + name
tracks = list(TrackReader(model.front_end).read([{{"track_id": name, "uri": uri}}]))
(row,) = model.tagger().tag(tracks, model_id="m", run_id="r")
(old,) = [old for old in pq.read_table(root + "/tags_best.parquet").to_pylist() if old["track_id"].endswith(name)]
assert (row["artist"], row["language"]) == (old["artist"], old["language"]), (row, old)
assert abs(row["artist_confidence"] - old["artist_confidence"]) < 1e-6, (row, old)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
