"""`mtl-core explain`: its tags are those of `tag`, its reasons follow from them, and a page shows them."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.catalogue import write_audio
from builders.models import save, with_class_means

from mtl_core import __main__
from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.inference.file_tagger import load_tagger
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.storage.location import Location

RATE_HZ = 16_000
#: The rule is sure of the artist's null after 4 segments, and of any language.
STOPS = {
    "artist": Stop(odds_from=1, named_from=0.9, null_below=0.9),
    "language": Stop(odds_from=0, named_from=0, null_below=0),
}
WITH_RULE = Aggregation(
    threshold={"artist": 0.9, "language": 0.0}, rounds=(Round(segments=4, numbers=Aggregation(), stop=STOPS),)
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run mtl-core explain with arguments; gives its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mtl-core", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def model(tmp_path: Path) -> Location:
    front_end = FrontEnd(sampling="spread", segments=16)
    artifact = replace(with_class_means(), front_end=front_end, aggregation=WITH_RULE)
    return save(artifact, Location(str(tmp_path / "model")))


def write_song(folder: Path, seconds: float, silent_to_s: float = 0) -> Path:
    time_s = np.arange(int(seconds * RATE_HZ))[:, None] / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 220 * time_s) * (time_s >= silent_to_s)
    write_audio(Location(str(folder / "song.wav")), tone, RATE_HZ)
    return folder / "song.wav"


def test_the_tags_are_those_of_tagging(run: Callable[..., tuple[int, str, str]], model: Location, tmp_path) -> None:
    song = write_song(tmp_path, 60)
    with load_tagger(model.path) as tagger:
        (row,) = tagger.tag([song])
    status, out, _ = run(song, "--model", model, "--json", "--html", tmp_path / "page.html")
    explained = json.loads(out)
    assert status == 0 and row["n_segments"] == 4
    for task in TASKS:
        tag = explained["tags"][task]
        assert (tag["label"], tag["confidence"]) == (row[task], pytest.approx(row[f"{task}_confidence"]))
    assert explained["stopped"] == "after 4 of 16 segments every task was decided"
    assert explained["reasons"]["artist"].startswith("null: the score (probability)")
    assert explained["reasons"]["language"].startswith("named: ")
    assert [segment["start_s"] for segment in explained["segments"]] == sorted(
        segment["start_s"] for segment in explained["segments"]
    )
    assert len(explained["segments"]) == 4 and [of["segments"] for of in explained["rounds"]] == [4]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 4 and "every task was decided" in page
    assert "src='http" not in page and "href='http" not in page


def test_all_segments_and_those_without_sound(
    run: Callable[..., tuple[int, str, str]], model: Location, tmp_path: Path
) -> None:
    song = write_song(tmp_path, 60, silent_to_s=30)
    status, out, _ = run(song, "--model", model, "--exit", "never")
    assert status == 0 and "16 of 16 segments read, 8 without sound; all segments" in out
    assert out.count("no sound\n") == 8
    silent = write_song(tmp_path, 60, silent_to_s=60)
    _, out, _ = run(silent, "--model", model, "--html", tmp_path / "page.html")
    assert "artist: null\n    null: no segment has sound" in out


def test_a_file_that_cannot_be_tagged(run: Callable[..., tuple[int, str, str]], model: Location, tmp_path) -> None:
    (tmp_path / "text.mp3").write_bytes(b"these are words " * 100)
    status, out, _ = run(tmp_path / "text.mp3", "--model", model)
    assert status == 3 and out.startswith("failed: decode not_audio")
    status, out, _ = run(tmp_path / "gone.mp3", "--model", model)
    assert status == 3 and out.startswith("failed: fetch not_found")
    status, _, error = run("http://x/a.mp3", "--model", model)
    assert status == 2 and error.count("\n") == 1
