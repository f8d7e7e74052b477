"""A training whose driver is killed ten times, at random, gives the model of an undisturbed one."""

import os
import random
import re
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

from mtl_core.inference.artifacts import artifact
from mtl_core.pipelines.train import STATE_FOLDER
from mtl_core.pipelines.training.train_state import STATE_FILE
from mtl_core.storage.location import Location

ROOT = Path(__file__).parents[2]
KILLS, EPOCHS = 10, 10
#: Of the command: two fold models and the final one, epoch by epoch.
ALL = [(model, epoch) for model in ("fold-0", "fold-1", "final") for epoch in range(1, EPOCHS + 1)]
RANDOM = random.Random(0)


def _reported_epochs(lines):
    found = re.findall(r"^training: (\S+) .*epoch (\d+) of", lines, re.MULTILINE)
    return [(model, int(epoch)) for model, epoch in found]


def _completed(out):
    files = [path for path, _ in (out / STATE_FOLDER).walk() if path.endswith(STATE_FILE)]
    return sum(completed_epochs(out / STATE_FOLDER / path) for path in files)


def _run(mels, out, kill_at=None):
    """Run the job; kill it at a random moment after `kill_at` epochs are done. Returns its status and its epochs."""
    ray_folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)
    flags = ["--mels", mels.uri, "--out", out.uri, "--folds", "2", "--epochs", str(EPOCHS)]
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
    assert _run(mels, undisturbed) == (0, ALL)
    for _ in range(KILLS):
        before = _completed(out)
        status, epochs = _run(mels, out, kill_at=before + RANDOM.randint(0, 1))
        assert status == -signal.SIGKILL
        assert epochs == ALL[before : before + len(epochs)]  # no epoch is trained again
        print(f"killed: {before} epochs were done, {epochs} came", flush=True)
    before = _completed(out)
    assert before > 0
    assert _run(mels, out) == (0, ALL[before:])
    losses = [
        [(epoch["epoch"], epoch["train_loss"], epoch["validation_loss"]) for epoch in model.metrics["history"]]
        for model in map(artifact.load_artifact, (undisturbed, out))
    ]
    assert losses[1] == losses[0]  # before the weights: it names the first epoch that differs
    weights = [(folder / artifact.WEIGHTS_FILE).read_bytes() for folder in (undisturbed, out)]
    assert weights[0] == weights[1]
    for folder in (undisturbed, out):
        assert (folder / artifact.OUT_OF_FOLD_FILE).read_bytes() == (
            undisturbed / artifact.OUT_OF_FOLD_FILE
        ).read_bytes()
