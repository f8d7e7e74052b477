"""`mtl-core enrol`: classes from a table of tags; what is not possible is one line and status 2."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders.models import save, with_class_means

from mtl_core import __main__
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import commit
from mtl_core.tables.data_files import write_files


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run mtl-core enrol with arguments; gives its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mtl-core", "enrol", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def write_tags(out: Location, trunk_of: dict[str, str | None]) -> None:
    """A table of tags with an embedding for each track; a track whose name has "silent" has none."""
    rng = np.random.default_rng(0)
    rows = [
        dict.fromkeys(TAGS.names)
        | {
            "track_id": track_id,
            "trunk_id": trunk_id,
            "embedding": None if "silent" in track_id else rng.normal(size=96).astype(np.float32),
        }
        for track_id, trunk_id in trunk_of.items()
    ]
    table = pa.Table.from_pylist(rows, schema=TAGS)
    files = write_files([table], out / "tags", "r", TAGS)
    done = commit.VerifiedRun(
        run_id="r", model_id="m", tagged=table.select(["track_id"]), tags=files, failures=FAILURES.empty_table()
    )
    commit.commit_run(out, done, lambda: None)


def test_an_artist_is_enrolled_from_the_table(run: Callable[..., tuple[int, str, str]], root: str) -> None:
    at, model = Location(root), with_class_means()
    save(model, at / "model", {"trained.mp3": "train"})
    trunk_id = artifacts.trunk_id(model)
    write_tags(at / "out", dict.fromkeys(["new/1.mp3", "new/2.mp3", "unrelated.mp3"], trunk_id))
    (at / "labels.csv").write_bytes(b"path,artist\nnew/1.mp3,the new\nnew/2.mp3,the new\nnot-tagged.mp3,the new\n")
    flags = ("--model", at / "model", "--out", at / "changed")
    status, out, _ = run(*flags, "--tags", at / "out", "--labels", at / "labels.csv", "--rename", "a=the first")
    assert status == 0 and "8 artists; enrolled the new from 2 tracks; renamed a=the first" in out
    changed = artifacts.load_artifact(at / "changed")
    assert changed.vocabularies["artist"].labels == ("b", "c", "d", "e", "f", "g", "the first", "the new")
    assert artifacts.trunk_id(changed) == trunk_id
    splits = dict(zip(*artifacts.load_splits(at / "changed").to_pydict().values(), strict=True))
    assert splits == dict.fromkeys(["trained.mp3", "new/1.mp3", "new/2.mp3"], "train")


@pytest.mark.parametrize(
    ("labels", "flags", "message"),
    [
        ("path,artist\nnew.mp3,a\n", (), "knows the artist 'a' already"),
        ("path,artist\nsilent.mp3,z\nnew.mp3,y\n", (), "the artist 'z' has no track with an embedding"),
        ("path,artist\nold.mp3,z\n", (), "1 tracks are of another model's trunk, e.g. 'old.mp3'"),
        ("path,language\nnew.mp3,en\n", (), "no track has a label in the column 'artist'"),
        ("path,language\nnew.mp3,zxx\n", ("--task", "language"), "no track has a label in the column 'language'"),
        ("path,artist\nnew.mp3,z\n", ("--remove", "z"), "does not know the artist 'z'"),
        ("path,artist\nnew.mp3,z\n", ("--rename", "a"), "rename must be OLD=NEW, got 'a'"),
        ("path,artist\nnew.mp3,z\n", ("--task", "mood"), "task must be one of artist, language, got 'mood'"),
        ("path,artist\nnew.mp3,z\n", ("--mels", "m"), "give --tags with --labels, or --mels"),
    ],
)
def test_what_is_not_possible_is_one_line(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, labels: str, flags: tuple[str, ...], message: str
) -> None:
    at, model = Location(str(tmp_path)), with_class_means()
    save(model, at / "model")
    trunk_id = artifacts.trunk_id(model)
    write_tags(at / "out", {"new.mp3": trunk_id, "silent.mp3": trunk_id, "old.mp3": None})
    (at / "labels.csv").write_bytes(labels.encode())
    of = ("--model", at / "model", "--out", at / "changed", "--tags", at / "out", "--labels", at / "labels.csv")
    status, _, error = run(*of, *flags)
    assert status == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "changed" / "model.json").exists()


def test_there_must_be_something_to_change(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    save(with_class_means(), at / "model")
    assert "nothing to change" in run("--model", at / "model", "--out", at / "changed")[2]
    assert "is the model itself" in run("--model", at / "model", "--out", at / "model", "--remove", "a")[2]
