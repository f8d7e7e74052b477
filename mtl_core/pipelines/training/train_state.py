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


@dataclass(kw_only=True)
class TrainState:
    """What a training knows beside the model and the optimizer.

    Args:
        history: the `Epoch` of each epoch that is done, as JSON values.
        best_loss: lowest validation loss; infinite where there is none.
        best_epoch: the epoch of `best_weights`, from 1; 0 before the first.
        best_weights: name -> tensor on the CPU.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] | None = None


def save_state(file: Location, state: TrainState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the file with the present state.

    Args:
        file: the state of this training.
        state: with the epoch that has just ended.
        model: not wrapped.
        optimizer: of the model.
    """
    buffer = io.BytesIO()
    torch.save({**asdict(state), "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    file.write_bytes(buffer.getbuffer())


def load_state(
    file: Location, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, rank: int, world_size: int
) -> TrainState:
    """Load model and optimizer from the file; where there is none, they stay as they are.

    Rank 0 reads the file and sends it to the others: a worker that was killed may still be writing, and all workers
    must start at the same epoch.

    Args:
        file: the state of this training.
        model: not wrapped.
        optimizer: of the model.
        rank: of this worker.
        world_size: number of workers.
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


def completed_epochs(file: Location) -> int:
    """Epochs that are done according to the file; 0 where there is none."""
    if not file.exists():
        return 0
    return len(torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)["history"])
