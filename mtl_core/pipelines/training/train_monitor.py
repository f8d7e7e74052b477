"""The progress of a training: a line for each epoch on the terminal, and the same figures for TensorBoard.

Each run of the command writes one event file to `OUT/_tensorboard/RUN/`, which is replaced as it grows because object
stores cannot append. Show it with `tensorboard --logdir OUT/_tensorboard`.
"""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from ray.util.queue import Queue
from tensorboardX import SummaryWriter

from mtl_core.pipelines.training.train_loop import Epoch
from mtl_core.storage.location import Location


def report_epochs(progress: Queue, epochs: int, folder: Location) -> None:
    """Report each of the `epochs` epochs that the queue gives, until it gives None; the event file is in `folder`."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, SummaryWriter(scratch, flush_secs=3600) as writer:
        while (epoch := progress.get()) is not None:
            seconds.append(epoch.seconds)
            left = timedelta(seconds=round((epochs - epoch.epoch) * sum(seconds) / len(seconds)))
            print(_epoch_line(epoch, epochs, left), file=sys.stderr, flush=True)
            scalars = {"loss/train": epoch.train_loss, "loss/validation": epoch.validation_loss}
            scalars |= {f"validation_top1/{task}": top1 for task, top1 in epoch.top1.items()}
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch.epoch)
            writer.flush()
            for file in Path(scratch).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())


def _epoch_line(epoch: Epoch, epochs: int, left: timedelta) -> str:
    scores = "".join(f", {task} {top1:.1%}" for task, top1 in epoch.top1.items())
    validation = "" if epoch.validation_loss is None else f", validation {epoch.validation_loss:.3f}{scores}"
    return (
        f"training: epoch {epoch.epoch} of {epochs}, loss {epoch.train_loss:.3f}{validation}, "
        f"{epoch.seconds:.1f} s, {left} left"
    )
