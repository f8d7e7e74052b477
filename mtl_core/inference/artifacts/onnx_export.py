"""ONNX export: a trained torch model -> the file that CPU workers run, and that any other ONNX runtime can.

Its input is "mel", log-mel segments (S, 1, 187, 96) float32, for any number S >= 1. Its outputs are "embedding" (S, E)
and, by the name of each task, the logits of that head (S, C).

`torch.export` takes seconds and its graph depends on the structure of the network alone. So a process exports each
structure once, and fills in the weights by their names.
"""

import functools
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from mtl_core.canonical import canonical_json
from mtl_core.model.cnn import BANDS, FRAMES, ModelConfig, MultitaskCNN

_OPSET = 20
_SEGMENTS = "segments"  # the name of the dimension S


def export_onnx(model: MultitaskCNN) -> bytes:
    """The network as an ONNX file. The same model gives the same bytes with the same version of torch."""
    task = next(iter(model.config.classes))
    structure = replace(model.config, classes={task: 1})  # the heads are added here
    exported = onnx.ModelProto()
    exported.CopyFrom(_export_embedding(canonical_json(structure.to_dict())))
    graph = exported.graph
    tensors = (*model.named_parameters(), *model.named_buffers())
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in tensors}
    for constant in graph.initializer:
        constant.CopyFrom(numpy_helper.from_array(weights[constant.name], constant.name))
    for task, classes in model.config.classes.items():
        names = [f"classifiers.{task}.{part}" for part in ("weight", "bias")]
        graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in names)
        graph.node.append(helper.make_node("Gemm", ["embedding", *names], [task], transB=1))
        graph.output.append(helper.make_tensor_value_info(task, onnx.TensorProto.FLOAT, [_SEGMENTS, classes]))
    return exported.SerializeToString(deterministic=True)


class _Embedding(MultitaskCNN):
    def forward(self, mel: Tensor) -> Tensor:  # type: ignore[override]
        return self.embed(mel)


@functools.lru_cache(maxsize=32)
def _export_embedding(config: str) -> onnx.ModelProto:
    """The graph from "mel" to "embedding" of a network of this structure, with any weights."""
    with torch.random.fork_rng(devices=[]), _quiet():
        network = _Embedding(ModelConfig.from_dict(json.loads(config))).eval()
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 1, FRAMES, BANDS),),
            dynamo=True,
            input_names=["mel"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim(_SEGMENTS)},),
            opset_version=_OPSET,
            optimize=False,  # it would fold weights into others, which have no names
            verbose=False,
        )
    assert program is not None  # None is for the old way of exporting
    exported = program.model_proto
    for part in (exported.graph, *exported.graph.node, *exported.graph.value_info, *exported.graph.initializer):
        part.ClearField("metadata_props")  # the lines of this program that made the node
        part.ClearField("doc_string")
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings of packages that are not installed, and of torch's own deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
