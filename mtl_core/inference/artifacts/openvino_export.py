"""OpenVINO export: a trained torch model -> OpenVINO's intermediate representation, which CPU workers run.

It uses OpenVINO's TorchScript front end, not `convert_model`, which sends usage reports over the network by default.
"""

import tempfile
import warnings
from pathlib import Path

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.passes import ConstantFolding, Manager
from torch import Tensor, nn

from mtl_core.model.cnn import BANDS, FRAMES, MultitaskCNN

_SOURCES = "fused_names_0"  # names of the operations that an operation was fused from


def export_openvino(model: MultitaskCNN) -> tuple[bytes, bytes]:
    """The network's graph (XML) and its constants; the same model gives the same bytes.

    The input is "mel" (B, 1, 187, 96) float32, the output "embedding" (B, 96). The heads are not in it: they take the
    mean embedding of a track (`heads`).
    """
    network = _Trunk(model).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of values that steer the graph: here they are constants
        # `reader` keeps no reference to its source, so it stays in a variable.
        source = TorchScriptPythonDecoder(torch.jit.trace(network, torch.zeros(2, 1, FRAMES, BANDS)))
        reader = FrontEndManager().load_by_framework("pytorch")
        graph = reader.convert(reader.load(source))
    graph.reshape([-1, 1, FRAMES, BANDS])
    folding = Manager()
    folding.register_pass(ConstantFolding())  # the graph is smaller, and its bytes are those of version 0.1
    folding.run_passes(graph)
    graph.set_friendly_name("network")
    for number, operation in enumerate(graph.get_ordered_ops()):  # the default names count on within a process
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
        runtime_info = operation.get_rt_info()
        if _SOURCES in runtime_info:
            del runtime_info[_SOURCES]
        for output in operation.outputs():
            output.get_tensor().set_names(set())
    graph.inputs[0].get_tensor().set_names({"mel"})
    graph.outputs[0].get_tensor().set_names({"embedding"})
    with tempfile.TemporaryDirectory() as folder:
        openvino.serialize(graph, f"{folder}/network.xml")
        return Path(f"{folder}/network.xml").read_bytes(), Path(f"{folder}/network.bin").read_bytes()


class _Trunk(nn.Module):
    def __init__(self, model: MultitaskCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, X_B1TF: Tensor) -> Tensor:
        return self.model.embed(X_B1TF)
