"""The progress of a training: a line for each epoch on the terminal, and the same figures for TensorBoard.

Each run of the command writes one event file to `OUT/_tensorboard/RUN/`, which is replaced as it grows because object
stores cannot append. Show it with `tensorboard --logdir OUT/_tensorboard`.
"""

import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from ray.util.queue import Queue
from tensorboardX import SummaryWriter

from mtl_core import log
from mtl_core.pipelines.training.train_loop import Epoch
from mtl_core.storage.location import Location


def report_epochs(progress: Queue, epochs: Mapping[str, int], folder: Location) -> None:
    """Report each epoch that the queue gives, until it gives None; the event file is in `folder`.

    Args:
        progress: of (name of a model, `Epoch`).
        epochs: name of each model, in the order in which they train -> the number of its epochs.
    """
    seconds: list[float] = []
    names = list(epochs)
    with tempfile.TemporaryDirectory() as scratch, SummaryWriter(scratch, flush_secs=3600) as writer:
        while (item := progress.get()) is not None:
            name, epoch = item
            seconds.append(epoch.seconds)
            behind = sum(epochs[other] for other in names[names.index(name) + 1 :]) + epochs[name] - epoch.epoch
            left = timedelta(seconds=round(behind * sum(seconds) / len(seconds)))
            model = f"{name} ({names.index(name) + 1} of {len(names)} models), " if len(names) > 1 else ""
            log.event("progress", _epoch_line(model, epoch, epochs[name], left))
            scalars = {"loss/train": epoch.train_loss, "loss/validation": epoch.validation_loss}
            scalars |= {f"validation_top1/{task}": top1 for task, top1 in epoch.top1.items()}
            for scalar, value in scalars.items():
                if value is not None:
                    writer.add_scalar(f"{name}/{scalar}" if len(names) > 1 else scalar, value, epoch.epoch)
            writer.flush()
            for file in Path(scratch).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())


def _epoch_line(model: str, epoch: Epoch, epochs: int, left: timedelta) -> str:
    scores = "".join(f", {task} {top1:.1%}" for task, top1 in epoch.top1.items())
    validation = "" if epoch.validation_loss is None else f", validation {epoch.validation_loss:.3f}{scores}"
    return (
        f"training: {model}epoch {epoch.epoch} of {epochs}, loss {epoch.train_loss:.3f}{validation}, "
        f"{epoch.seconds:.1f} s, {left} left"
    )
