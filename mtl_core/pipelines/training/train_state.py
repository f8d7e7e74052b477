"""The state of a training: one file, replaced as a whole at the end of each epoch.

Ray Train restarts the workers when one fails, and the same command resumes a training whose driver was killed. Both
continue from this file. It is ours rather than a checkpoint of Ray Train, because Ray Train writes its list of
checkpoints in place: a kill at that moment leaves a list from which it cannot start.
"""

import io
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed

from mtl_core.storage.location import Location

STATE_FILE = "state.pt"  # of a model, in its folder


@dataclass(kw_only=True)
class TrainState:
    """What a training has besides the model and the optimizer."""

    history: list[dict[str, Any]] = field(default_factory=list)  # the `Epoch` of each that is done, as JSON values
    best_loss: float = float("inf")  # lowest validation loss; infinite if there is none
    best_epoch: int = 0  # the epoch of `best_weights`, from 1; 0 before the first
    best_weights: dict[str, torch.Tensor] | None = None  # name -> tensor on the CPU


def save_state(file: Location, state: TrainState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the file with the state after an epoch, the model (not wrapped) and its optimizer."""
    buffer = io.BytesIO()
    torch.save({**asdict(state), "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    file.write_bytes(buffer.getbuffer())


def load_state(
    file: Location, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, rank: int, world_size: int
) -> TrainState:
    """Load the model (not wrapped) and its optimizer from the file; without a file, they stay as they are.

    Rank 0 reads the file and sends it to the others: a worker that was killed may still be writing, and all workers
    must start at the same epoch.
    """
    contents = [file.read_bytes() if rank == 0 and file.exists() else None]
    if world_size > 1:
        torch.distributed.broadcast_object_list(contents, src=0)
    if contents[0] is None:
        return TrainState()
    values = torch.load(io.BytesIO(contents[0]), map_location="cpu", weights_only=True)
    model.load_state_dict(values.pop("model"))
    optimizer.load_state_dict(values.pop("optimizer"))
    return TrainState(**values)
