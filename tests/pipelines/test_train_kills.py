"""A training whose driver is killed ten times, at random, gives the model of an undisturbed one."""

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
from builders.train_state import completed_epochs

from mtl_core.inference import artifact
from mtl_core.pipelines.train import STATE_FILE, STATE_FOLDER
from mtl_core.storage.location import Location

ROOT = Path(__file__).parents[2]
KILLS, EPOCHS = 10, 30
RANDOM = random.Random(0)


def _reported_epochs(lines):
    return [int(line.split()[2]) for line in lines.splitlines() if line.startswith("training: epoch")]


def _completed(out):
    files = [path for path, _ in (out / STATE_FOLDER).walk() if path.endswith(STATE_FILE)]
    return max((completed_epochs(out / STATE_FOLDER / path) for path in files), default=0)


def _run(mels, out, kill_at=None):
    """Run the job; kill it at a random moment after `kill_at` epochs are done. Returns its status and its epochs."""
    ray_folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)
    flags = ["--mels", mels.uri, "--out", out.uri, "--recipe", "best", "--epochs", str(EPOCHS), "--num-workers", "1"]
    with tempfile.TemporaryFile("w+") as errors:
        job = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *flags], env=environment, stderr=errors
        )
        before = _completed(out)
        while kill_at is not None and job.poll() is None and _completed(out) < kill_at:
            time.sleep(0.05)
        if kill_at is not None:
            time.sleep(RANDOM.uniform(0, 1.5 if kill_at > before else 12))  # while it trains, or while it starts
            job.send_signal(signal.SIGKILL)
        job.wait(600)
        errors.seek(0)
        lines = errors.read()
    if kill_at is not None:
        time.sleep(4)  # its workers live some 3 s longer
    shutil.rmtree(ray_folder, ignore_errors=True)
    return job.returncode, _reported_epochs(lines)


@pytest.mark.slow
def test_a_training_killed_ten_times_gives_the_model_of_an_undisturbed_one(tmp_path):
    mels = write_mels(tmp_path / "mels")
    undisturbed, out = Location(str(tmp_path / "undisturbed")), Location(str(tmp_path / "killed"))
    assert _run(mels, undisturbed) == (0, list(range(1, EPOCHS + 1)))
    for _ in range(KILLS):
        before = _completed(out)
        status, epochs = _run(mels, out, kill_at=before + RANDOM.randint(0, 1))
        assert status == -signal.SIGKILL
        assert epochs == list(range(before + 1, before + 1 + len(epochs)))  # no epoch is trained again
        print(f"killed: {before} epochs were done, {epochs} came", flush=True)
    before = _completed(out)
    assert before > 0
    assert _run(mels, out) == (0, list(range(before + 1, EPOCHS + 1)))
    losses = [
        [(epoch["epoch"], epoch["train_loss"], epoch["validation_loss"]) for epoch in model.metrics["history"]]
        for model in map(artifact.load_artifact, (undisturbed, out))
    ]
    assert losses[1] == losses[0]  # before the weights: it names the first epoch that differs
    weights = [(folder / artifact.WEIGHTS_FILE).read_bytes() for folder in (undisturbed, out)]
    assert weights[0] == weights[1]
