"""The exported network is the model, in any runtime of ONNX and in the engine of CPU workers."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mtl_core.inference.artifacts.onnx_export import export_onnx
from mtl_core.inference.openvino_engine import CpuEngine
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN, drop_head

CLASSES = {"artist": 5, "language": 3}
PARTS = {"artist": 4, "language": 2}
CONFIGS = [
    ModelConfig(classes=CLASSES),
    ModelConfig(classes=CLASSES, trunk="statistics", statistics=True, parts=PARTS),
]


def _trained(config: ModelConfig) -> MultitaskCNN:
    """A model whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    model = MultitaskCNN(config).train()
    with torch.no_grad():
        model(2 * torch.rand(8, 1, FRAMES, BANDS))
    return model.eval()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.trunk)
def test_onnxruntime_and_openvino_give_the_outputs_of_torch(config: ModelConfig) -> None:
    model, X_B1TF = _trained(config), torch.rand(5, 1, FRAMES, BANDS)
    exported = export_onnx(model)
    onnx.checker.check_model(onnx.ModelProto.FromString(exported), full_check=True)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["embedding", "artist", "language"]
    with torch.no_grad():
        embedding_BE = model.embed(X_B1TF)
        expected = {"embedding": embedding_BE, **model.heads(embedding_BE)}
    for n_segments in (1, 5):
        found = dict(zip(expected, session.run(None, {"mel": X_B1TF[:n_segments].numpy()}), strict=True))
        for name, values in expected.items():
            assert np.abs(found[name] - values[:n_segments].numpy()).max() < 1e-4
    found_BE = CpuEngine(exported).infer(X_B1TF[:, 0].numpy())
    assert np.abs(found_BE - embedding_BE.numpy()).max() < 1e-4


def test_the_file_depends_on_the_weights_and_on_nothing_else() -> None:
    """The second model of a structure takes the graph of the first."""
    one, other = _trained(CONFIGS[0]), MultitaskCNN(CONFIGS[0]).eval()
    random_state = torch.get_rng_state()
    exported = export_onnx(one)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert export_onnx(other) != exported == export_onnx(one)
    assert b".py" not in exported  # no lines of the program that made it
    artist = onnx.ModelProto.FromString(export_onnx(drop_head(one, "language")))
    assert [output.name for output in artist.graph.output] == ["embedding", "artist"]
