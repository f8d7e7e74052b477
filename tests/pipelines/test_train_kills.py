"""A training whose driver is killed ten times, at random, ends in the model of an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from builders.small_mels import write_mels
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from mtl_core.inference import artifact
from mtl_core.pipelines.training.checkpoints import listed_epochs, start_of
from mtl_core.storage.location import Location

ROOT = Path(__file__).parents[2]
KILLS, EPOCHS = 10, 30
DRAW = random.Random(0)


def _epochs(lines):
    return [int(line.split()[2]) for line in lines.splitlines() if line.startswith("training: epoch")]


def _done(out):
    runs = {path.split("/")[0] for path, _ in (out / "_train").walk()} - {".validate_storage_marker"}
    for run in runs:
        for _ in range(100):
            listed = listed_epochs(out / "_train" / run)
            if listed is not None or not (out / "_train" / run / CHECKPOINT_MANAGER_SNAPSHOT_FILENAME).exists():
                return listed or 0
            time.sleep(0.05)  # Ray Train writes its list in place: it is empty for a moment
        return start_of(out / "_train" / run).epochs  # a kill hit that moment
    return 0


def _try(mels, out, kill_at=None):
    """One call of the job, killed at random soon after `kill_at` epochs are done; returns status and its epochs."""
    ray_folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)
    flags = ["--mels", mels.uri, "--out", out.uri, "--recipe", "best", "--epochs", str(EPOCHS), "--num-workers", "1"]
    with tempfile.TemporaryFile("w+") as errors:
        job = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *flags], env=environment, stderr=errors
        )
        before = _done(out)
        while kill_at is not None and job.poll() is None and _done(out) < kill_at:
            time.sleep(0.05)
        if kill_at is not None:
            time.sleep(DRAW.uniform(0, 1.5 if kill_at > before else 12))  # while it trains, or while it starts
            job.send_signal(signal.SIGKILL)
        job.wait(600)
        errors.seek(0)
        said = errors.read()
    if kill_at is not None:
        time.sleep(4)  # its workers outlive it by some 3 s
    shutil.rmtree(ray_folder, ignore_errors=True)
    return job.returncode, _epochs(said)


@pytest.mark.slow
def test_ten_kills(tmp_path):
    mels = write_mels(tmp_path / "mels")
    undisturbed, out = Location(str(tmp_path / "undisturbed")), Location(str(tmp_path / "killed"))
    assert _try(mels, undisturbed) == (0, list(range(1, EPOCHS + 1)))
    for _ in range(KILLS):
        before = _done(out)
        status, epochs = _try(mels, out, kill_at=before + DRAW.randint(0, 1))
        assert status == -signal.SIGKILL
        assert epochs == list(range(before + 1, before + 1 + len(epochs)))  # none before the checkpoint again
        print(f"killed: {before} epochs were done, {epochs} came", flush=True)
    before = _done(out)
    assert before > 0
    assert _try(mels, out) == (0, list(range(before + 1, EPOCHS + 1)))
    weights = [(folder / artifact.WEIGHTS_FILE).read_bytes() for folder in (undisturbed, out)]
    assert weights[0] == weights[1]
    history = [epoch["epoch"] for epoch in artifact.load_artifact(out).metrics["history"]]
    assert history == list(range(1, EPOCHS + 1))
