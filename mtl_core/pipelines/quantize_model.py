"""Quantize a model: an artifact and mels -> the same artifact in 8-bit integers, if its tags stay what they are.

The ranges come from segments of the training part, the judgement from tracks of the validation part, both through the
engine that tags. One process, no Ray: a few thousand segments are enough.

Legend: S segments, T frames, F mel bands, C classes.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
import torch

from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.mel_files import iter_segments
from mtl_core.errors import InputError, RunError
from mtl_core.inference import artifact
from mtl_core.inference.aggregation import track_probabilities
from mtl_core.inference.artifact import Artifact
from mtl_core.inference.openvino_engine import CpuEngine
from mtl_core.inference.openvino_export import export_openvino
from mtl_core.model.quantization import calibrate
from mtl_core.storage.checks import check_reachable, check_writable
from mtl_core.storage.location import Location

LEAST_AGREEMENT = 0.995  # of tracks whose first label stays
LARGEST_DIFFERENCE = 0.02  # of any probability of any track
CALIBRATION_SEGMENTS = 1024


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The integers' tags beside those of float32, on `tracks` tracks.

    Args:
        agreement: task -> share of tracks with the same first label, 0 to 1.
        difference: task -> largest difference of a probability.
    """

    tracks: int
    agreement: dict[str, float]
    difference: dict[str, float]

    def __str__(self) -> str:
        tasks = (f"{t} {self.agreement[t]:.2%} and {self.difference[t]:.4f}" for t in self.agreement)
        return f"on {self.tracks:,} tracks, first labels agree on and probabilities differ by up to: {', '.join(tasks)}"


def quantize_model(model: Location, mels: Location, out: Location, *, seed: int = 0) -> str:
    """Write the artifact with its quantization to `out`, a folder of its own with a `model_id` of its own.

    Args:
        model: folder of the artifact.
        mels: folder of mels of the artifact's front end, with tracks of its training and validation parts.
        out: folder of the new artifact.
        seed: of the choice of calibration segments.

    Returns:
        A summary for people.

    Raises:
        InputError: no model, no mels or those of another front end, or none of one of the two parts.
        RunError: the tags do not stay what they are; nothing is written.
    """
    check_reachable(model)
    known = artifact.load_artifact(model)
    if known.quantization is not None:
        raise InputError(f"{model} is quantized already")
    if known.model.config.trunk != "paper":
        raise InputError(f"{model} has the trunk {known.model.config.trunk!r}: 8-bit integers are for 'paper'")
    source = open_mel_dataset(mels)
    if source.front_end.hash() != known.front_end.hash():
        raise InputError(f"{mels} is of another front end than {model}")
    check_writable(out)
    splits = artifact.load_splits(model)
    picked = {}
    for part in ("train", "validation"):
        ids = splits.filter(pc.equal(splits["split"], part))["track_id"].to_pylist()
        picked[part] = set(ids) & set(source.tracks["track_id"].to_pylist())
        if not picked[part]:
            raise InputError(f"{mels} holds no track of the {part} part of {model}")
    quantization = calibrate(known.model, torch.from_numpy(_some_segments(source, picked["train"], seed))[:, None])
    rounded = replace(known, quantization=quantization)
    compared = _compare(known, rounded, source, picked["validation"])
    if min(compared.agreement.values()) < LEAST_AGREEMENT or max(compared.difference.values()) > LARGEST_DIFFERENCE:
        raise RunError(f"{compared}; allowed are {LEAST_AGREEMENT:.1%} at the least and {LARGEST_DIFFERENCE}")
    return f"model {artifact.save_artifact(rounded, splits, out)}: {compared}\n-> {out}"


def _some_segments(source: MelDataset, picked: set[str], seed: int) -> np.ndarray:
    """Segments (S, T, F) float32 of the tracks, each as likely as any other; at most CALIBRATION_SEGMENTS."""
    wanted = pc.is_in(source.tracks["track_id"], pc.cast(list(picked), "string"))
    n_segments = pc.sum(source.tracks.filter(wanted)["segments"]).as_py()
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(n_segments)[:CALIBRATION_SEGMENTS])
    found, seen = [], 0
    for file in source.files:
        for _, _, mel_STF in iter_segments(file, picked):
            here = chosen[(chosen >= seen) & (chosen < seen + len(mel_STF))] - seen
            found.append(mel_STF[here])
            seen += len(mel_STF)
    return np.concatenate(found)


def _compare(known: Artifact, rounded: Artifact, source: MelDataset, picked: set[str]) -> Comparison:
    engines = [
        CpuEngine(*export_openvino(one.model, one.quantization), list(one.vocabularies)) for one in (known, rounded)
    ]
    logits: list[dict[str, dict[str, list[np.ndarray]]]] = [defaultdict(lambda: defaultdict(list)) for _ in engines]
    for file in source.files:
        for track_ids, _, mel_STF in iter_segments(file, picked):
            for engine, of_tracks in zip(engines, logits, strict=True):
                for task, logits_SC in engine.infer(mel_STF)[0].items():
                    for track_id, logits_C in zip(track_ids, logits_SC, strict=True):
                        of_tracks[task][track_id].append(logits_C)
    agreement, difference = {}, {}
    for task in known.vocabularies:
        temperature = known.aggregation.temperature[task]
        exact_NC, integer_NC = (
            np.array([track_probabilities(np.array(of_tracks[task][i]), temperature) for i in sorted(picked)])
            for of_tracks in logits
        )
        agreement[task] = float((exact_NC.argmax(1) == integer_NC.argmax(1)).mean())
        difference[task] = float(np.abs(exact_NC - integer_NC).max())
    return Comparison(tracks=len(picked), agreement=agreement, difference=difference)
