"""The multitask CNN: one log-mel segment -> an embedding of 96 values -> the logits of one linear head per task.

The trunk `paper` is that of Singh & Biswas, "Multitask Learning based Deep Learning Model for Music Artist and Language
Recognition": five blocks of Conv 3x3, ReLU, BatchNorm, MaxPool 2x2, Dropout, then flattened. ReLU before BatchNorm is
the paper's order. Initialisation and BatchNorm constants are Keras' defaults. The trunk `statistics` is in
`statistics_trunk`. Weights and activations are in channels_last order: on a CPU a segment takes three quarters of the
time.

Legend: B batch, T frames (187), F mel bands (96), E embedding (96), C classes.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_core.audio.mel import MEL_SHAPE
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.model.cosine_lda import SCALE, CosineLda
from mtl_core.model.segment_statistics import MODULATION_EDGES, SegmentStatistics, n_statistics
from mtl_core.model.statistics_trunk import StatisticsTrunk
from mtl_core.model.typical import EmbeddingLength

FRAMES, BANDS = MEL_SHAPE
TRUNKS = ("paper", "statistics")
EMBEDDING = 96  # 3 frames x 1 band x 32 channels; with "same" padding it would be 5 x 3 x 32


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The structure of the network. Raises ValueError where a value is out of its range.

    Every field is written to an artifact's model.json and is part of its `model_id`, so fields are never removed.
    No recipe sets `channels`, `padding` or `batch_norm_eps`.
    """

    classes: Mapping[str, int]  # task -> number of classes, >= 1; the model has one head for each task
    trunk: str = "paper"  # one of `TRUNKS`
    channels: tuple[int, ...] = (32, 64, 128, 64, 32)  # output channels of each block of the trunk "paper"
    #: Of the trunk "paper": "valid" (193,813 parameters with 68 and 17 classes, the paper's "193k") or "same"
    #: (226,453), for readers who understand the paper so.
    padding: str = "valid"
    dropout: float = 0.25  # share of the activations that are dropped after each block, in [0, 1)
    batch_norm_momentum: float = 0.01  # weight of a batch in the running statistics; Keras' 0.99 is 0.01 here
    batch_norm_eps: float = 1e-3  # added to the variance
    trunk_values: int = EMBEDDING  # D, of the trunk "statistics"; those of the trunk "paper" follow from its channels
    #: Task -> values of the embedding that it has, if the heads are those of `cosine_lda`; also of a task whose head
    #: was dropped. None: the trunk's output is the embedding.
    parts: Mapping[str, int] | None = None
    statistics: bool = False  # whether these heads use `segment_statistics` beside the trunk

    def __post_init__(self) -> None:
        if not self.classes or not set(self.classes) <= set(TASKS):
            raise ValueError(f"classes must name at least one of {TASKS}, got {dict(self.classes)}")
        if not all(isinstance(count, int) and count >= 1 for count in self.classes.values()):
            raise ValueError(f"classes must be whole numbers >= 1, got {dict(self.classes)}")
        if self.trunk not in TRUNKS:
            raise ValueError(f"trunk must be one of {TRUNKS}, got {self.trunk!r}")
        if self.padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same', got {self.padding!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0 < self.batch_norm_momentum <= 1 or not self.batch_norm_eps > 0:
            raise ValueError(
                "batch_norm_momentum must be in (0, 1] and batch_norm_eps > 0, "
                f"got {self.batch_norm_momentum} and {self.batch_norm_eps}"
            )
        if self.trunk_values < 1:
            raise ValueError(f"trunk_values must be 1 or more, got {self.trunk_values}")
        if self.parts is not None and (
            not set(self.classes) <= set(self.parts) <= set(TASKS) or sum(self.parts.values()) > EMBEDDING
        ):
            raise ValueError(f"parts must be of {sorted(self.classes)} and {EMBEDDING} values, got {dict(self.parts)}")
        if not self.channels or min(self.channels) < 1 or self.trunk_output < 1:
            raise ValueError(f"channels must be >= 1 and leave at least one frame and band, got {self.channels}")

    @property
    def embedding(self) -> int:
        """E, the number of values before the heads."""
        return self.trunk_output if self.parts is None else EMBEDDING

    @property
    def n_values(self) -> int:
        """The number of values that the heads of `cosine_lda` are fitted on."""
        return self.trunk_output + (n_statistics(BANDS) if self.statistics else 0)

    @property
    def trunk_output(self) -> int:
        """D, the number of values that the trunk gives."""
        if self.trunk != "paper":
            return self.trunk_values
        frames, bands = FRAMES, BANDS
        border = 2 if self.padding == "valid" else 0
        for _ in self.channels:
            frames, bands = max(0, frames - border) // 2, max(0, bands - border) // 2
        return frames * bands * self.channels[-1]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` is the inverse. Fields that are not of version 0.1 are left out at their default."""
        values = {**asdict(self), "classes": dict(self.classes), "channels": list(self.channels)}
        added = {"trunk_values": EMBEDDING, "parts": None, "statistics": False}
        return {name: value for name, value in values.items() if name not in added or value != added[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError where `values` are not its output."""
        return cls(**{**values, "channels": tuple(values["channels"])})


class MultitaskCNN(nn.Module):
    """The network of `config`: log-mel segments X_B1TF, float32 (B, 1, 187, 96), -> {task: logits (B, C)}.

    Weights are drawn from torch's global random state: the trunk first, then the heads in the order of `TASKS`. One
    seed therefore gives the same trunk for any tasks, and the same artist head with or without language.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _trunk(config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trunk.apply(_initialise)  # before the heads exist: creating them draws numbers too
        self.statistics = SegmentStatistics(FRAMES, BANDS) if config.statistics else None
        modulations = len(MODULATION_EDGES) - 1 if config.statistics else 0
        self.projection = None if config.parts is None else UnitParts(config.n_values, config.parts, modulations)
        self.classifiers = nn.ModuleDict()
        for task in (task for task in TASKS if task in config.classes):
            self.classifiers[task] = nn.Linear(config.embedding, config.classes[task]).apply(_initialise)

    def embed(self, X_B1TF: Tensor) -> Tensor:
        """The embeddings of segments, (B, E) float32."""
        return self.trunk(X_B1TF).flatten(1) if self.projection is None else self.projection(self.values(X_B1TF))

    def values(self, X_B1TF: Tensor) -> Tensor:
        """What the heads of `cosine_lda` are fitted on, (B, D) float32: the trunk's values, then the statistics."""
        X_BD = self.trunk(X_B1TF).flatten(1)
        return X_BD if self.statistics is None else torch.cat([X_BD, self.statistics(X_B1TF)], 1)

    def heads(self, X_BE: Tensor) -> dict[str, Tensor]:
        """The logits of embeddings, {task: (B, C)}."""
        return {task: head(X_BE) for task, head in self.classifiers.items()}

    def forward(self, X_B1TF: Tensor) -> dict[str, Tensor]:
        """The logits of segments, {task: (B, C)}."""
        return self.heads(self.embed(X_B1TF))


class UnitParts(nn.Module):
    """The values of segments (B, D) -> embeddings (B, 96): a vector for each task, side by side, then zeros.

    The vectors have unit length where the segment is as those of the training, and are the shorter, the less it is so:
    those of noise or of a pure tone (`typical`). A direction says who sings; the length says that somebody does.
    """

    def __init__(self, values: int, parts: Mapping[str, int], modulations: int) -> None:
        super().__init__()
        self.sizes = [parts[task] for task in TASKS if task in parts]
        self.linear = nn.Linear(values, sum(self.sizes))
        self.length = EmbeddingLength(values, modulations)

    def forward(self, X_BD: Tensor) -> Tensor:
        """The embeddings of segments."""
        units = [functional.normalize(part_BP, dim=1) for part_BP in self.linear(X_BD).split(self.sizes, dim=1)]
        return functional.pad(torch.cat(units, 1) * self.length(X_BD), (0, EMBEDDING - sum(self.sizes)))


def with_cosine_heads(model: MultitaskCNN, fitted: CosineLda) -> MultitaskCNN:
    """A copy of a trained model with the embedding and the heads of `cosine_lda.fit_cosine_lda`, in eval mode."""
    tasks = [task for task in TASKS if task in fitted.parts]
    sizes = {task: len(fitted.parts[task].weight_PD) for task in tasks}
    finished = MultitaskCNN(replace(model.config, parts=sizes)).to(next(model.parameters()).device)
    assert finished.projection is not None
    finished.trunk.load_state_dict(model.trunk.state_dict())
    projection, first = finished.projection, 0
    with torch.no_grad():
        projection.linear.weight.copy_(torch.from_numpy(np.concatenate([fitted.parts[t].weight_PD for t in tasks])))
        projection.linear.bias.copy_(torch.from_numpy(np.concatenate([fitted.parts[t].bias_P for t in tasks])))
        projection.length.set(fitted.typical)
        for task in tasks:
            head = finished.classifiers[task]
            assert isinstance(head, nn.Linear)
            head.weight.zero_()
            head.bias.zero_()
            head.weight[:, first : first + sizes[task]] = torch.from_numpy(SCALE * fitted.parts[task].classes_CP)
            first += sizes[task]
    return finished.eval()


def drop_head(model: MultitaskCNN, task: str) -> MultitaskCNN:
    """A copy of the model without the head of `task`; its other outputs are the same to the bit.

    Raises ValueError where the model has no such head, or no other head.
    """
    classes = dict(model.config.classes)
    if task not in classes or len(classes) == 1:
        raise ValueError(f"cannot drop the head {task!r} of a model of {sorted(classes)}: one other must stay")
    del classes[task]
    dropped = MultitaskCNN(replace(model.config, classes=classes))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(f"classifiers.{task}.")}
    dropped.load_state_dict(copy.deepcopy(state))
    return dropped.to(next(model.parameters()).device).train(model.training)


def _trunk(config: ModelConfig) -> nn.Sequential:
    eps, momentum = config.batch_norm_eps, config.batch_norm_momentum
    if config.trunk == "statistics":
        return nn.Sequential(
            StatisticsTrunk(BANDS, config.trunk_values, dropout=config.dropout, eps=eps, momentum=momentum)
        )
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=config.padding),
                nn.ReLU(),
                nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
                nn.MaxPool2d(2),
                nn.Dropout(config.dropout),
            )
            for in_channels, out_channels in zip((1, *config.channels), config.channels, strict=False)
        )
    )


def _initialise(module: nn.Module) -> None:
    """Keras' defaults: Glorot uniform kernels, zero biases."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
