"""The artifact: what a folder must hold to be a model, and what its name depends on."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
import yaml
from builders.models import untrained_artifact

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import model_id
from mtl_core.inference.artifacts.artifact_files import (
    CARD_FILE,
    MODEL_FILE,
    NETWORK_FILE,
    WEIGHTS_FILE,
)
from mtl_core.inference.artifacts.artifact_files import SPLITS_FILE as SPLITS_FILE
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.unknown import NOTHING_IS_NAMED
from mtl_core.model.cnn import BANDS, FRAMES, TRUNKS, ModelConfig, MultitaskCNN
from mtl_core.storage.location import Location

SPLITS = pa.table({"track_id": ["a", "b", "c"], "split": ["train", "validation", "test"]})


def _artifact(**changes):
    values = {
        "aggregation": Aggregation(temperature={"artist": 1.5}),
        "fingerprint": "f" * 64,
        "metrics": {
            "best_epoch": 2,
            "epochs": 3,
            "seed": 0,
            "validation": {"artist": {"segments": 40, "top1": 0.5, "chance": 1 / 3}},
        },
        "versions": {"torch": "2"},
        "recipe": {"name": "paper"},
    }
    return untrained_artifact({"artist": ("b", "c", "Ä"), "language": ("x", "y")}, **{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    location = Location(str(tmp_path / "model"))
    artifact.save_artifact(_artifact(), SPLITS, location)
    return location


def test_round_trip(folder):
    before, after = _artifact(), artifact.load_artifact(folder)
    X_B1TF = torch.rand(2, 1, FRAMES, BANDS)
    for task, logits_BC in before.model(X_B1TF).items():
        assert torch.equal(after.model(X_B1TF)[task], logits_BC)
    assert not after.model.training
    assert model_id(after) == model_id(before)
    for field in ("front_end", "vocabularies", "aggregation", "fingerprint", "metrics", "versions", "recipe"):
        assert getattr(after, field) == getattr(before, field)
    assert artifact.load_splits(folder).to_pydict() == SPLITS.to_pydict()


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_network_of_cpus_is_the_model_without_torch(tmp_path, trunk):
    torch.manual_seed(1)
    model = MultitaskCNN(ModelConfig(classes={"artist": 3, "language": 2}, trunk=trunk))
    known = _artifact(model=model, front_end=FrontEnd(sampling="spread", segments=8))
    artifact.save_artifact(known, SPLITS, Location(str(tmp_path)))
    network = load_cpu_model(Location(str(tmp_path)))
    assert network.model_id == model_id(known)
    for field in ("front_end", "vocabularies", "aggregation"):
        assert getattr(network, field) == getattr(known, field)
    mel_STF = 4 * torch.rand(7, FRAMES, BANDS)
    embedding_SE = network.engine().infer(mel_STF.numpy())
    with torch.inference_mode():
        X_SE = known.model.embed(mel_STF[:, None])
        assert np.abs(embedding_SE - X_SE.numpy()).max() < 1e-4
        for task, logits_SC in known.model.heads(X_SE).items():
            assert np.abs(network.heads[task].all_logits(embedding_SE) - logits_SC.numpy()).max() < 1e-4


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    artifact.load_artifact(folder)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_model_is_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        artifact.save_artifact(_artifact(), SPLITS, Location(str(tmp_path / name)))
    for name in (WEIGHTS_FILE, NETWORK_FILE, MODEL_FILE, SPLITS_FILE, CARD_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_id_is_of_what_can_change_a_tag_and_of_nothing_else():
    known = _artifact()
    for same in (
        replace(known, metrics={}),
        replace(known, versions={"torch": "3"}),
        replace(known, recipe={}),
        replace(known, fingerprint=""),
    ):
        assert model_id(same) == model_id(known)
    other_weights = _artifact()
    with torch.no_grad():
        next(other_weights.model.parameters())[0, 0, 0, 0] += 1e-6
    others = [
        other_weights,
        replace(known, front_end=FrontEnd(segments_per_excerpt=2)),
        *(replace(known, front_end=FrontEnd(sampling="spread", segments=segments)) for segments in (20, 32)),
        replace(known, vocabularies={**known.vocabularies, "language": Vocabulary(("x", "z"))}),
        replace(known, aggregation=Aggregation(temperature={"artist": 2})),
        replace(known, aggregation=Aggregation(threshold={"artist": 0.5})),
    ]
    assert len({model_id(other) for other in [known, *others]}) == len(others) + 1


def test_vocabularies_must_fit_the_heads():
    with pytest.raises(ValueError, match="do not fit a model of"):
        _artifact(vocabularies={"artist": Vocabulary(("a",)), "language": Vocabulary(("x", "y"))})


@pytest.mark.parametrize(
    "fact",
    [
        model_id(_artifact()),
        "artist (3 classes)",
        "1 train, 1 validation, 1 test",
        "50.0%",
        "33.3%",
        "Ä",
        'never answers "unknown"',
    ],
)
def test_the_model_card_states_the_facts(folder, fact):
    assert fact in (folder / CARD_FILE).read_bytes().decode()


def test_the_model_card_begins_with_the_metadata_of_the_hub(folder):
    _, metadata, text = (folder / CARD_FILE).read_bytes().decode().split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert metadata["pipeline_tag"] == "audio-classification" and metadata["license"] == "unknown"
    assert "artist-identification" in metadata["tags"] and text.startswith("# Music tagger: ")


def test_the_model_card_states_the_thresholds(tmp_path):
    aggregation = Aggregation(threshold={"artist": 0.5})
    artifact.save_artifact(_artifact(aggregation=aggregation), SPLITS, Location(str(tmp_path)))
    card = (tmp_path / CARD_FILE).read_text()
    assert "- artist: the tag is null where the score (probability) is below 0.5." in card
    assert '- language: it never answers "unknown", because no threshold is set.' in card


def test_the_model_card_of_a_model_without_metrics(tmp_path):
    aggregation = Aggregation(threshold={"artist": NOTHING_IS_NAMED})
    artifact.save_artifact(_artifact(metrics={}, aggregation=aggregation), SPLITS, Location(str(tmp_path)))
    card = (tmp_path / CARD_FILE).read_text()
    assert "the model is not calibrated" in card
    assert "- artist: **every tag is null**, because no threshold reached the precision. Top" in card


def _edit(folder, **changes):
    path = Path((folder / MODEL_FILE).path)
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "gone"}))


def _truncate(folder, name):
    path = Path((folder / name).path)
    path.write_bytes(path.read_bytes()[:-100])


def _refit(folder, **changes):
    """As if the weights in the folder had always been those of another model."""
    other = Location(f"{folder.uri}-other")
    artifact.save_artifact(_artifact(**changes), SPLITS, other)
    (folder / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())
    _edit(folder, sha256=json.loads((other / MODEL_FILE).read_bytes())["sha256"])


_OTHER = {
    "model": MultitaskCNN(ModelConfig(classes={"artist": 3, "language": 2}, channels=(8, 16, 16, 16, 32))),
}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: folder.delete_tree(), "no file model.json"),
        (lambda folder: (folder / MODEL_FILE).delete(), "no file model.json"),
        (lambda folder: (folder / WEIGHTS_FILE).delete(), "no file weights.safetensors"),
        (lambda folder: (folder / SPLITS_FILE).delete(), "no file splits.parquet"),
        (lambda folder: (folder / MODEL_FILE).write_bytes(b"{"), "model.json is not JSON"),
        (lambda folder: (folder / MODEL_FILE).write_bytes(b"\xff\xfe"), "model.json is not JSON"),
        (lambda folder: (folder / MODEL_FILE).write_bytes(b"[]"), "format version None"),
        (lambda folder: _edit(folder, format_version=99), "format version 99, allowed is 2"),
        (lambda folder: _edit(folder, quantization={}), "has 8-bit weights, which only version 0.1 reads"),
        (lambda folder: _edit(folder, vocabularies="gone"), "model.json has no 'vocabularies'"),
        (lambda folder: _edit(folder, vocabularies=[]), "model.json: wrong 'vocabularies'"),
        (lambda folder: _edit(folder, vocabularies={"artist": ["b"], "language": ["x", "y"]}), "do not fit a model"),
        (lambda folder: _edit(folder, front_end={"mel": {}, "tempo": 1}), "model.json"),
        (lambda folder: _edit(folder, aggregation={"method": "median"}), "median"),
        (lambda folder: _edit(folder, model={}), "model.json has no 'channels'"),
        (lambda folder: _edit(folder, aggregation=asdict(Aggregation())), "its content is"),
        (lambda folder: _truncate(folder, WEIGHTS_FILE), "weights.safetensors is not the file"),
        (lambda folder: _truncate(folder, SPLITS_FILE), "splits.parquet is not the file"),
        (lambda folder: _refit(folder, **_OTHER), "trunk.0.0.bias is (8,), model.json asks for (32,)"),
    ],
)
def test_a_folder_that_is_not_an_artifact_is_refused_in_one_line(folder, damage, said):
    damage(folder)
    with pytest.raises(InputError) as error:
        artifact.load_artifact(folder)
    assert str(error.value).startswith(f"{folder} is not a model artifact: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    if "splits" not in said:  # which tagging does not read
        with pytest.raises(InputError, match=f"^{folder} is not a model artifact: "):
            load_cpu_model(folder)


def test_weights_that_are_not_safetensors_or_not_finite_are_refused(folder):

    broken = {name: tensor.contiguous() for name, tensor in _artifact().model.state_dict().items()}
    broken["trunk.0.0.bias"][0] = float("nan")
    for data, said in ((b"\x80\x02pickle", "cannot be read"), (safetensors.torch.save(broken), "not finite")):
        (folder / WEIGHTS_FILE).write_bytes(data)
        hashes = json.loads((folder / MODEL_FILE).read_bytes())["sha256"]
        _edit(folder, sha256={**hashes, WEIGHTS_FILE: hashlib.sha256(data).hexdigest()})
        with pytest.raises(InputError, match=said):
            artifact.load_artifact(folder)


def test_an_interrupted_save_is_refused(folder):
    """The weights of another model came, its model.json did not."""
    torch.manual_seed(1)
    other = Location(f"{folder.uri}-other")
    artifact.save_artifact(
        _artifact(model=MultitaskCNN(ModelConfig(classes={"artist": 3, "language": 2}))), SPLITS, other
    )
    (folder / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="an interrupted save"):
        artifact.load_artifact(folder)
