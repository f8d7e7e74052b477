"""Network: a trained model as CPUs run it, with what its use needs. Arrays in, arrays out, no torch.

OpenVINO takes a fifth to a fifteenth of the CPU seconds of eager torch here. A few segments go through at once, so that
the values between two layers stay in a core's cache.

Legend: S segments, T frames, F mel bands, C classes, E embedding (96).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openvino
import safetensors
import safetensors.numpy

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.artifact_files import (
    NETWORK_GRAPH,
    NETWORK_WEIGHTS,
    WEIGHTS_FILE,
    as_invalid_model,
    check_identity,
    content_hash,
    inference_fields,
    invalid_model,
    read_file,
    read_values,
)
from mtl_core.storage.location import Location

#: Measured: 40 segments of `paper` take 94 ms with 2 at once, 99 with 4, 109 with 40.
CPU_BATCH_SEGMENTS = 4


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """What a CPU worker needs of an artifact.

    Args:
        model_id: the artifact's.
        front_end: what makes its input.
        vocabularies: task -> classes.
        aggregation: how its segments become a track's tag.
        graph, weights: OpenVINO's intermediate representation, as `export.export` makes it.
    """

    model_id: str
    front_end: FrontEnd
    vocabularies: dict[str, Vocabulary]
    aggregation: Aggregation
    graph: bytes
    weights: bytes

    def engine(self) -> "CpuEngine":
        """What runs it, in this process."""
        return CpuEngine(self.graph, self.weights, list(self.vocabularies))


def load_cpu_model(location: Location) -> CpuModel:
    """The network of the artifact in a folder.

    Raises:
        InputError: a file is missing, damaged or of another save, or a field is missing or does not fit the rest.
    """
    values = read_values(location)
    files = {name: read_file(location, name, values) for name in (WEIGHTS_FILE, NETWORK_GRAPH, NETWORK_WEIGHTS)}
    try:
        state = safetensors.numpy.load(files[WEIGHTS_FILE])
    except safetensors.SafetensorError as error:
        raise invalid_model(location, f"{WEIGHTS_FILE} cannot be read: {error}") from None
    with as_invalid_model(location):
        network = CpuModel(
            model_id=values["model_id"],
            front_end=FrontEnd.from_dict(values["front_end"]),
            vocabularies={task: Vocabulary(tuple(labels)) for task, labels in values["vocabularies"].items()},
            aggregation=Aggregation.from_dict(values["aggregation"]),
            graph=files[NETWORK_GRAPH],
            weights=files[NETWORK_WEIGHTS],
        )
    check_identity(location, values, content_hash(inference_fields(values), state))
    return network


class CpuEngine:
    """Runs a network on one core of this machine; compiling it takes a fraction of a second.

    Args:
        graph, weights: OpenVINO's intermediate representation, as `export.export` makes it.
        tasks: names of its outputs beside the embedding.
    """

    def __init__(self, graph: bytes, weights: bytes, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(graph, weights), "CPU", _OF_ONE_CORE)
        self._request = compiled.create_infer_request()

    def infer(self, mel_STF: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Segments (S, 187, 96) float32 -> logits {task: (S, C)} and embeddings (S, E), float32."""
        found: list[dict[str, np.ndarray]] = []
        for first in range(0, len(mel_STF), CPU_BATCH_SEGMENTS):
            X_B1TF = np.ascontiguousarray(mel_STF[first : first + CPU_BATCH_SEGMENTS, None])
            outputs = self._request.infer({"mel": X_B1TF}, share_inputs=True)
            found.append({name: outputs[name] for name in ("embedding", *self._tasks)})
        together = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        return {task: together[task] for task in self._tasks}, together["embedding"]


#: An actor has one core, and not the one that OpenVINO would tie every actor of the machine to.
_OF_ONE_CORE = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",  # where a CPU has bfloat16, it would be used: tags must not differ by machine
}
