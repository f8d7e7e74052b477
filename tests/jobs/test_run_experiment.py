"""An experiment end to end: three models are trained, stored and compared. The same command then trains nothing."""

import json
import runpy
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders.small_mels import write_mels

JOB = Path(__file__).parents[2] / "jobs" / "run_experiment.py"


@pytest.fixture
def run(monkeypatch, capfd):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(JOB), *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOB), run_name="__main__")
        return ended.value.code or 0, *capfd.readouterr()

    return run


@pytest.mark.slow
def test_one_command_makes_table_1_and_the_same_command_trains_nothing(local_ray, run, tmp_path):
    mels, out = write_mels(tmp_path / "mels"), tmp_path / "out"
    flags = ["--mels", mels, "--out", out, "--recipes", "demo", "--folds", 0, "--seeds", 0, "--epochs", 2]
    code, output, log = run(*flags, "--resamples", 20)
    assert code == 0
    assert log.count("training: epoch 2 of 2") == 3
    assert not (out / "alphas.md").exists()
    for row in (
        "artist: multi-task \N{MINUS SIGN} artist-only",
        "language: multi-task \N{MINUS SIGN} language-only",
        "language: via artist-only",
        "artist: demo \N{MINUS SIGN} linear",
    ):
        assert row in output
    table = json.loads((out / "table1.json").read_text())
    assert {row["tracks"]["n"][0] for row in table["groups"][0]["systems"]} == {4}
    assert (out / "table1.md").exists() and "<h2>Differences</h2>" in (out / "report.html").read_text()

    code, again, log = run(*flags, "--resamples", 20)
    assert (code, again) == (0, output)
    assert "training:" not in log
    assert "4 runs, 4 of them stored" in log

    # As if killed between training and storing: the model is not trained again.
    key = "demo-both-kfold-fold-0-seed-0-epochs-2"
    (out / "runs" / key / "run.json").unlink()
    code, again, log = run(*flags, "--resamples", 20)
    assert (code, again) == (0, output)
    assert "training:" not in log

    code, more, log = run(*flags, "--resamples", 20, "--alphas", 0, 1)
    assert (code, more[: more.index("The effect of alpha")].strip()) == (0, output[: output.rindex("->")].strip())
    assert log.count("training: epoch 2 of 2") == 2
    assert "2 (default)" in (out / "alphas.md").read_text()
    assert "<h2>The effect of alpha</h2>" in (out / "report.html").read_text()
    artist_only, alpha_0 = (
        pq.read_table(out / "runs" / name / "logits.parquet", columns=["track_id", "artist_logits"])
        for name in (key.replace("both", "artist"), f"{key}-alpha-0")
    )
    assert alpha_0.equals(artist_only)  # bit for bit: with alpha 0 the language head does not change the trunk

    other = write_mels(tmp_path / "other", artists=False)
    code, _, log = run("--mels", other, "--out", out, "--tasks", "language", "--folds", 0, "--table-only")
    assert code == 2
    assert "is of other mels" in log and log.count("\n") == 1
