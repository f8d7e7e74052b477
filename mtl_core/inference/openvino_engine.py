"""OpenVINO engine: a trained model as CPU workers run it. Arrays in, arrays out, no torch.

OpenVINO takes a quarter or less of the CPU seconds of eager torch (docs/decisions.md). A batch holds few segments, so
that the values between two layers stay in a core's cache.

Legend: S segments, B batch, T frames, F mel bands, E embedding (96).
"""

import io
from dataclasses import dataclass

import numpy as np
import openvino

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.artifacts.artifact_files import NETWORK_FILE, OLD_NETWORK_FILES, read_header, trunk_hash
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.tagger import Tagger
from mtl_core.storage.location import Location

#: Measured: 40 segments of `paper` take 94 ms with 2 at once, 99 with 4, 109 with 40.
CPU_BATCH_SEGMENTS = 4
#: A worker has one core. OpenVINO would pin every worker of a machine to the same core.
_ONE_CORE = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",  # a CPU that has bfloat16 would use it, and tags would differ by machine
}


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """The part of an artifact that a CPU worker needs."""

    model_id: str
    trunk_id: str
    front_end: FrontEnd
    vocabularies: dict[str, Vocabulary]
    heads: dict[str, Head]
    aggregation: Aggregation
    network: tuple[bytes, ...]  # a file of ONNX; of version 0.1 OpenVINO's graph and its constants

    def engine(self) -> "CpuEngine":
        """Compile the network in this process."""
        return CpuEngine(*self.network)

    def tagger(self, options: ExitOptions | None = None) -> Tagger:
        """A tagger that runs the network in this process."""
        parts = (self.engine(), self.front_end, self.heads, self.vocabularies, self.aggregation)
        return Tagger(*parts, options, trunk_id=self.trunk_id)


def load_cpu_model(location: Location) -> CpuModel:
    """Load the artifact in a folder for use on CPUs. Raises InputError as `artifact.load_artifact`."""
    header = read_header(location)
    weights = header.read_weights()
    header.check_identity(weights)
    network = (NETWORK_FILE,) if NETWORK_FILE in header.values["sha256"] else OLD_NETWORK_FILES
    return CpuModel(
        model_id=header.model_id,
        trunk_id=trunk_hash(header.values, weights),
        front_end=header.front_end,
        vocabularies=header.vocabularies,
        heads=header.read_heads(weights),
        aggregation=header.aggregation,
        network=tuple(header.read_file(name) for name in network),
    )


class CpuEngine:
    """Runs a network up to its output "embedding", on one CPU core. Compiling it takes a fraction of a second."""

    def __init__(self, graph: bytes, constants: bytes | None = None) -> None:
        core = openvino.Core()
        network = core.read_model(io.BytesIO(graph) if constants is None else graph, constants)
        trunk = openvino.Model([network.output("embedding")], network.get_parameters())  # without the heads
        self._request = core.compile_model(trunk, "CPU", _ONE_CORE).create_infer_request()

    def infer(self, mel_STF: np.ndarray) -> np.ndarray:
        """Segments (S, 187, 96) float32, S >= 1 -> embeddings (S, E) float32."""
        batches: list[np.ndarray] = []
        for first in range(0, len(mel_STF), CPU_BATCH_SEGMENTS):
            X_B1TF = np.ascontiguousarray(mel_STF[first : first + CPU_BATCH_SEGMENTS, None])
            batches.append(self._request.infer({"mel": X_B1TF}, share_inputs=True)["embedding"])
        return np.concatenate(batches)
