"""What a kill can leave of a run's checkpoints, and where it is taken up."""

import io
import json

import pytest
import torch
from builders.small_mels import write_mels
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME as LIST

from mtl_core.inference import artifact
from mtl_core.pipelines import train as pipeline
from mtl_core.pipelines.training.checkpoints import STATE, listed_epochs, start_of
from mtl_core.storage.location import Location


def checkpoints(run, epochs):
    """Those of some epochs, the last one on Ray Train's list."""
    for epoch in epochs:
        state = io.BytesIO()
        torch.save({"history": [{}] * epoch, "model": torch.zeros(1000)}, state)
        (run / f"checkpoint_2026-01-0{epoch}" / STATE).write_bytes(state.getvalue())
    latest = {"latest_checkpoint_result": {"metrics": {"epoch": epochs[-1]}}}
    (run / LIST).write_bytes(json.dumps(latest).encode())


def cut(place, share):
    whole = place.read_bytes()
    place.write_bytes(whole[: int(share * len(whole))])


def test_a_whole_list_is_left_to_ray(root, capsys):
    run = Location(root) / "run"
    assert start_of(run).epochs == 0
    checkpoints(run, [1, 2])
    start = start_of(run)
    assert (start.checkpoint, listed_epochs(run)) == (None, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_without_a_whole_list_the_newest_whole_checkpoint_is_the_start(root, share, capsys):
    run = Location(root) / "run"
    checkpoints(run, [2, 3])
    cut(run / LIST, share)
    start = start_of(run)
    assert start.checkpoint.path.endswith("checkpoint_2026-01-03")
    assert (start.epochs, listed_epochs(run)) == (3, None)
    assert not (run / LIST).exists()
    assert capsys.readouterr().err == "training: a kill cut off its list of checkpoints: it goes on after epoch 3\n"
    cut(run / "checkpoint_2026-01-03" / STATE, share)
    assert (start_of(run).epochs, start_of(run).checkpoint.path[-1]) == (2, "2")
    cut(run / "checkpoint_2026-01-02" / STATE, share)
    assert (start_of(run).epochs, start_of(run).checkpoint) == (0, None)


@pytest.mark.slow
def test_a_training_goes_on_from_a_list_that_was_cut_off(local_ray, tmp_path, monkeypatch, capfd):
    mels, out, whole = write_mels(tmp_path / "mels"), Location(str(tmp_path / "a")), Location(str(tmp_path / "b"))
    asked = {"mels": mels, "recipe": "demo", "epochs": 3}
    with monkeypatch.context() as patched:
        patched.setattr(pipeline.artifact, "save", lambda *given: 1 / 0)  # ends before its checkpoints are deleted
        with pytest.raises(ZeroDivisionError):
            pipeline.train(out=out, **asked)
    (listed,) = (path for path, _ in (out / "_train").walk() if path.endswith(LIST))
    *_, newest = (path for path, _ in (out / "_train").walk() if path.endswith(STATE))
    cut(out / "_train" / listed, 0.5)
    cut(out / "_train" / newest, 0.5)
    capfd.readouterr()
    pipeline.train(out=out, **asked)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training:")]
    assert said[0] == "training: a kill cut off its list of checkpoints: it goes on after epoch 2"
    assert said[1].startswith("training: epoch 3 of 3") and len(said) == 2
    pipeline.train(out=whole, **asked)
    weights = [(folder / artifact.WEIGHTS_FILE).read_bytes() for folder in (out, whole)]
    assert weights[0] == weights[1]
