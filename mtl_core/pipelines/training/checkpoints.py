"""Checkpoints of a training: written after each epoch, and which one it is taken up from.

Ray Train keeps a list of a run's checkpoints, and writes it in place: a kill at that moment leaves a file that is cut
off, from which it starts no more. The checkpoints themselves are whole by then. Such a list is deleted, and the newest
checkpoint whose state can be read is the start.
"""

import contextlib
import io
import json
import pickle
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from mtl_core.storage.location import Location

STATE = "state.pt"
#: What torch raises when it loads a file that ends too soon, or is not there.
_CUT_OFF = (FileNotFoundError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint to start from that is on no list of Ray Train's.

    Args:
        epochs: done before, >= 0.
        checkpoint: None where no epoch is done.
    """

    epochs: int
    checkpoint: ray.train.Checkpoint | None


def start_of(run: Location) -> Start:
    """Where a run starts that Ray Train has no list of; a list that is cut off is deleted, and said.

    Args:
        run: where Ray Train keeps the run's checkpoints.
    """
    folders = {path.split("/")[0] for path, _ in run.walk() if "/" in path}
    if not folders or listed_epochs(run) is not None:
        return Start(epochs=0, checkpoint=None)
    (run / CHECKPOINT_MANAGER_SNAPSHOT_FILENAME).delete()
    start = Start(epochs=0, checkpoint=None)
    for place in (run / folder for folder in sorted(folders)):  # they are named by the time
        with contextlib.suppress(*_CUT_OFF):
            state = torch.load(io.BytesIO((place / STATE).read_bytes()), map_location="cpu", weights_only=True)
            checkpoint = ray.train.Checkpoint(place.path, filesystem=place.arrow_filesystem)
            start = Start(epochs=len(state["history"]), checkpoint=checkpoint)
    print(f"training: a kill cut off its list of checkpoints: it goes on after epoch {start.epochs}", file=sys.stderr)
    return start


def listed_epochs(run: Location) -> int | None:
    """Epochs of the last checkpoint on Ray Train's list; None where that is missing or cut off."""
    try:
        latest = json.loads((run / CHECKPOINT_MANAGER_SNAPSHOT_FILENAME).read_bytes())["latest_checkpoint_result"]
    except (FileNotFoundError, ValueError):
        return None
    return int(latest["metrics"]["epoch"]) if latest else 0


def load(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, start: ray.train.Checkpoint | None
) -> dict[str, Any]:
    """Load model and optimiser from the last checkpoint, or `start`; the state of the training there, or before it."""
    checkpoint = ray.train.get_checkpoint() or start
    if checkpoint is None:
        return {"history": [], "best_loss": float("inf"), "best_epoch": 0, "best_weights": None}
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def save(state: dict[str, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    """Put the end of an epoch into the run's storage; every worker reports, the first one writes."""
    metrics = {"epoch": len(state["history"])}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
