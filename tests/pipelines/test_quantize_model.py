"""A model of 8-bit integers: another model, whose tags are those of the first, or none."""

from pathlib import Path

import pytest
from test_evaluate import catalogue, write_mels, write_model

from mtl_core.errors import InputError, RunError
from mtl_core.inference import artifact
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.pipelines import quantize_model as job
from mtl_core.pipelines.quantize_model import quantize_model
from mtl_core.storage.location import Location


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Location:
    at = Location(str(tmp_path_factory.mktemp("quantized")))
    write_mels(catalogue(), at / "mels")
    write_model(catalogue(), at / "model")
    return at


def test_it_is_a_model_of_its_own_that_says_the_same(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LEAST_AGREEMENT", 0.8)  # an untrained model's classes are nearly tied
    said = quantize_model(place / "model", place / "mels", place / "int8")
    before, after = load_cpu_model(place / "model"), load_cpu_model(place / "int8")
    assert after.model_id in said and after.model_id != before.model_id
    assert "on 6 tracks" in said and "differ by up to: artist" in said
    assert artifact.load_splits(place / "int8") == artifact.load_splits(place / "model")
    with pytest.raises(InputError, match="is quantized already"):
        quantize_model(place / "int8", place / "mels", place / "again")


def test_tags_that_would_change_are_not_written(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LARGEST_DIFFERENCE", 1e-9)
    with pytest.raises(RunError, match=r"on 6 tracks.*allowed are 99.5% at the least and 1e-09"):
        quantize_model(place / "model", place / "mels", place / "refused")
    assert not Path((place / "refused").path).exists()


def test_mels_without_the_part_to_judge_on_are_said(place: Location) -> None:
    write_mels([track for track in catalogue() if track["split"] == "train"], place / "few")
    with pytest.raises(InputError, match="few holds no track of the validation part of"):
        quantize_model(place / "model", place / "few", place / "out")
