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
from small_mels import write_mels

from mtl_core import artifact
from mtl_core.pipelines.training_data import epochs_done
from mtl_core.storage import Location

ROOT = Path(__file__).parents[2]
KILLS, EPOCHS = 10, 60


def _epochs(lines):
    return [int(line.split()[2]) for line in lines.splitlines() if line.startswith("training: epoch")]


def _done(out):
    runs = {path.split("/")[0] for path, _ in (out / "_train").walk()} - {".validate_storage_marker"}
    return max((epochs_done(out / "_train" / run) for run in runs), default=0)


def _try(mels, out, kill_after_s):
    """One call of the job, killed `kill_after_s` after its start; returns status and epochs."""
    ray_folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)
    flags = ["--mels", mels.uri, "--out", out.uri, "--recipe", "best", "--epochs", str(EPOCHS), "--num-workers", "1"]
    with tempfile.TemporaryFile("w+") as errors:
        job = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *flags], env=environment, stderr=errors
        )
        try:
            job.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            job.send_signal(signal.SIGKILL)
            job.wait()
            time.sleep(4)  # its workers outlive it by some 3 s
        errors.seek(0)
        said = errors.read()
    shutil.rmtree(ray_folder, ignore_errors=True)
    return job.returncode, _epochs(said)


@pytest.mark.slow
def test_ten_kills(tmp_path):
    mels = write_mels(tmp_path / "mels")
    undisturbed, out = Location(str(tmp_path / "undisturbed")), Location(str(tmp_path / "killed"))
    began_s = time.monotonic()
    assert _try(mels, undisturbed, 600) == (0, list(range(1, EPOCHS + 1)))
    whole_s = time.monotonic() - began_s
    training_s = sum(epoch["seconds"] for epoch in artifact.load(undisturbed).metrics["history"])
    draw, seen = random.Random(0), []
    for _ in range(KILLS):
        before = _done(out)
        kill_after_s = whole_s - training_s + draw.uniform(-0.1, 1.5 / KILLS) * training_s
        status, epochs = _try(mels, out, kill_after_s)
        assert status == -signal.SIGKILL
        assert epochs == list(range(before + 1, before + 1 + len(epochs)))  # none before the checkpoint again
        seen.append((before, epochs))
    before = _done(out)
    assert before > 0
    assert _try(mels, out, 600) == (0, list(range(before + 1, EPOCHS + 1)))
    weights = [(folder / artifact.WEIGHTS).read_bytes() for folder in (undisturbed, out)]
    assert weights[0] == weights[1]
    history = [epoch["epoch"] for epoch in artifact.load(out).metrics["history"]]
    assert history == list(range(1, EPOCHS + 1))
    print(f"{len(seen)} kills; checkpoint and epochs of each try: {seen}")
