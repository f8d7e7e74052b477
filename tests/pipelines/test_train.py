"""Training with Ray Train workers on small mels: results, killed workers and drivers, wrong arguments."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from builders.small_mels import ARTISTS, SEGMENTS, SONGS, write_mels, write_tracks

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.pipelines.train import STATE_FOLDER, TrainOptions, train
from mtl_core.pipelines.training.train_state import STATE_FILE
from mtl_core.storage.location import Location

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "train.py"


@pytest.fixture(scope="module")
def mels(tmp_path_factory):
    return write_mels(tmp_path_factory.mktemp("mels"))


def _after_first_epoch(out, action):
    """Call `action` from a thread once an epoch is done; returns a list that takes its result."""
    results = []

    def watch():
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not results:
            if any(path.endswith(STATE_FILE) for path, _ in (out / STATE_FOLDER).walk()):
                results.append(action())
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    return results


def _kill_worker():
    """SIGKILL one of the training workers of this process's Ray; returns its process id."""
    ours = [os.getpid()]
    for pid in ours:  # grows: every process below this one
        for thread in Path("/proc", str(pid), "task").glob("*/children"):
            ours += [int(child) for child in thread.read_text().split()]
    for pid in ours:
        if b"RayTrainWorker" in Path("/proc", str(pid), "cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return pid
    return None


def test_two_workers_train_a_loadable_model(local_ray, mels, tmp_path, capfd):
    out = Location(str(tmp_path / "model"))
    options = TrainOptions(recipe="paper", split="paper", epochs=2, num_workers=2)
    summary = train(mels, out, options)
    loaded = artifact.load_artifact(out)
    history = loaded.metrics["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    best = min(history, key=lambda epoch: epoch["validation_loss"])
    assert loaded.metrics["best_epoch"] == best["epoch"]
    assert loaded.metrics["validation"]["artist"]["segments"] == 2 * SEGMENTS
    assert {task: len(v) for task, v in loaded.vocabularies.items()} == {"artist": 4, "language": 2}
    assert loaded.fingerprint == open_mel_dataset(mels).fingerprint
    assert all(temperature != 1 for temperature in loaded.aggregation.temperature.values())
    split = dict(zip(*artifact.load_splits(out).to_pydict().values(), strict=True))
    assert len(split) == ARTISTS * SONGS + 1
    assert split["None-0"] == "train"
    assert not (out / STATE_FOLDER).exists()
    assert artifact.model_id(loaded) in summary
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training: epoch")]
    assert len(lines) == 2
    (events,) = (out / "_tensorboard").walk()
    assert events[0].startswith(loaded.metrics["run"])
    again = train(mels, out, options)
    assert again == f"nothing to do: {out} holds the model {artifact.model_id(loaded)} of this training"
    assert "training: epoch" not in capfd.readouterr().err


def test_crossfit_calibrates_a_model_of_all_tracks_on_tracks_that_are_new(local_ray, mels, bucket, capfd):
    """On S3, where a model of another training is replaced."""
    out, mels_on_s3 = Location(f"{bucket}/model"), Location(f"{bucket}/mels")
    for file in mels.files():
        (mels_on_s3 / file.name).write_bytes(file.read_bytes())
    (out / artifact.WEIGHTS_FILE).write_bytes(b"of another model")
    train(mels_on_s3, out, TrainOptions(recipe="demo", folds=2, epochs=3, num_workers=2))
    loaded = artifact.load_artifact(out)
    assert loaded.metrics["split"] == {"kind": "crossfit", "seed": 0, "folds": 2, "group_column": None}
    assert loaded.metrics["tracks"] == {"train": ARTISTS * SONGS + 1, "validation": 0, "held_out": 0}
    assert [epoch["epoch"] for epoch in loaded.metrics["history"]] == [1, 2, 3]
    assert sum(loaded.model.config.parts.values()) <= 96
    rows = loaded.out_of_fold.to_pylist()
    assert {row["fold"] for row in rows} == {0, 1}
    unknown = [row["track_id"] for row in rows if not row["known"]]
    assert len(unknown) == len(set(unknown)) == ARTISTS * SONGS
    assert all(row["artist_top"][0]["label"] != row["artist"] for row in rows if not row["known"])
    known = [row["artist_top"][0]["label"] == row["artist"] for row in rows if row["known"]]
    assert len(known) > ARTISTS * SONGS / 2
    assert np.mean(known) > 0.9
    norms = [np.linalg.norm(row["embedding"]) for row in rows]
    assert max(norms) <= 2**0.5 + 1e-5  # means of two unit vectors
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training: ")]
    assert list(dict.fromkeys(line.split()[1] for line in lines)) == ["fold-0", "fold-1", "final"]
    assert lines[-1].startswith("training: final (3 of 3 models), epoch 3 of 3, loss ")
    assert not list((out / STATE_FOLDER).walk())


@pytest.mark.slow
def test_without_a_split_a_model_is_not_calibrated(local_ray, mels, tmp_path):
    out = Location(str(tmp_path / "model"))
    train(mels, out, TrainOptions(recipe="demo", split="none", epochs=1, drop_head=("language",)))
    loaded = artifact.load_artifact(out)
    assert loaded.out_of_fold is None
    assert list(loaded.vocabularies) == list(loaded.model.config.classes) == ["artist"]
    assert loaded.aggregation.to_dict() == Aggregation().to_dict()


@pytest.mark.slow
def test_one_seed_gives_one_model_to_the_bit(local_ray, mels, tmp_path):
    """One of the three trainings loses a worker."""
    weights = []
    for name in ("disturbed", "b", "c"):
        out = Location(str(tmp_path / name))
        killed = _after_first_epoch(out, _kill_worker) if name == "disturbed" else [0]
        train(mels, out, TrainOptions(recipe="best", split="none", epochs=6, num_workers=2))
        assert killed[0] is not None
        weights.append((out / artifact.WEIGHTS_FILE).read_bytes())
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.slow
def test_unequal_data(local_ray, tmp_path):
    """One artist with a track, one with 30; one language; labels missing in either task; validation without any."""
    tracks = [("rare", "x", "rare-0"), *(("common", "x", f"common-{i}") for i in range(30))]
    tracks += [(None, "x", f"nobody-{i}") for i in range(3)] + [("silent", None, f"silent-{i}") for i in range(3)]
    mels = write_tracks(tmp_path / "mels", tracks)
    out = Location(str(tmp_path / "model"))
    train(mels, out, TrainOptions(recipe="paper", split="paper", epochs=1, num_workers=1))
    loaded = artifact.load_artifact(out)
    assert list(loaded.vocabularies["artist"].labels) == ["common", "rare", "silent"]
    assert len(loaded.vocabularies["language"]) == 1
    assert loaded.metrics["validation"]["artist"]["segments"] > 0
    alone = write_tracks(tmp_path / "alone", [(f"a{i}", "x", f"a{i}") for i in range(4)])
    summary = train(alone, out, TrainOptions(recipe="paper", split="paper", epochs=2, num_workers=2))
    assert "there is no validation part" in summary
    loaded = artifact.load_artifact(out)
    assert loaded.metrics["validation_loss"] is None
    assert loaded.metrics["best_epoch"] == 2


@pytest.mark.slow
def test_the_same_command_resumes_after_its_driver_was_killed(local_ray, mels, tmp_path, capfd):
    out = Location(str(tmp_path / "model"))
    ray_folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    flags = ["--mels", mels.uri, "--out", out.uri, "--recipe", "demo", "--epochs", "3", "--split", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)
    driver = subprocess.Popen(
        [sys.executable, str(JOB), *flags], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    killed = _after_first_epoch(out, driver.kill)
    driver.communicate(timeout=600)
    assert killed
    assert driver.returncode == -signal.SIGKILL
    time.sleep(4)  # its workers outlive it by some 3 s
    shutil.rmtree(ray_folder, ignore_errors=True)
    capfd.readouterr()
    train(mels, out, TrainOptions(recipe="demo", epochs=3, split="none"))
    assert [epoch["epoch"] for epoch in artifact.load_artifact(out).metrics["history"]] == [1, 2, 3]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training: epoch")]
    assert 1 <= len(lines) <= 2  # the epochs that the killed driver had not finished


def _run_job(monkeypatch, capsys, *flags):
    monkeypatch.setattr(sys, "argv", [str(JOB), *flags])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(JOB), run_name="__main__")
    return exit_.value.code, capsys.readouterr().err


def _mixed(folder):
    write_mels(folder)
    other = write_mels(folder.with_name("other"), front_end=FrontEnd(segments_per_excerpt=2))
    shutil.copy(Path(other.path) / "0.parquet", folder / "9.parquet")


def _doubled(folder):
    write_mels(folder)
    shutil.copy(folder / "0.parquet", folder / "9.parquet")


def _no_mels(folder):
    folder.mkdir()
    pq.write_table(pa.table({"track_id": ["a"]}), folder / "0.parquet")


def _doubles(folder):
    write_mels(folder)
    table = pq.read_table(folder / "0.parquet")
    wide = pa.FixedShapeTensorArray.from_numpy_ndarray(table["mel"].combine_chunks().to_numpy_ndarray().astype("f8"))
    pq.write_table(table.set_column(table.schema.get_field_index("mel"), "mel", wide), folder / "0.parquet")


def _nameless(folder):
    write_mels(folder)
    table = pq.read_table(folder / "0.parquet")
    nobody = pa.nulls(len(table), pa.string())
    pq.write_table(table.set_column(0, pa.field("track_id", pa.string()), nobody), folder / "0.parquet")


def _no_parquet(folder):
    folder.mkdir()
    (folder / "0.parquet").write_bytes(b"mel")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there are no mels"),
        (lambda folder: folder.mkdir(), "there are no mels"),
        (_no_parquet, "0.parquet holds no mels"),
        (_no_mels, "holds no mels: no column 'segment'"),
        (_doubles, "allowed is float16 of (187, 96)"),
        (_nameless, "0.parquet: 15 of its rows have no track_id"),
        (_mixed, "mixes mels of 2 front ends"),
        (_doubled, "is in two files"),
        (lambda folder: write_mels(folder, artists=False), "needs two artists or more, got 0: use --split none"),
        (lambda folder: write_tracks(folder, [(f"a{a}", None, f"a{a}-0") for a in range(9)]), "label for 'language'"),
        (lambda folder: write_tracks(folder, [(f"a{a}", "x", f"a{a}-0") for a in range(9)]), "no artist has two songs"),
        (
            lambda folder: write_tracks(folder, [("a", "x", f"a{s}-0") for s in range(9)]),
            "needs two artists or more, got 1",
        ),
    ],
)
def test_wrong_mels(tmp_path, monkeypatch, capsys, make, message):
    make(tmp_path / "mels")
    code, error = _run_job(monkeypatch, capsys, "--mels", str(tmp_path / "mels"), "--out", str(tmp_path / "model"))
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_gpus_that_are_not_there(local_ray, mels, tmp_path, monkeypatch, capsys):
    if ray.cluster_resources().get("GPU"):
        pytest.skip("there is a GPU")
    flags = ["--mels", mels.uri, "--out", str(tmp_path / "model"), "--use-gpu", "--split", "none"]
    code, error = _run_job(monkeypatch, capsys, *flags)
    expected = "error: 1 workers of 1 GPU each: the cluster has room for 0 (4 CPUs, 0 GPUs in all) [exit status 2]\n"
    assert (code, error) == (2, expected)
