"""The commands and snippets of the user's pages run as they stand there, in the order of the pages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import s3fs
from builders.sound_files import mp3
from deltalake import DeltaTable

from mtl_core.dataset.synthetic.catalogue import CatalogueConfig, Song, pcm, plan_songs
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.tables.delta import storage_options

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "tests" / "fixtures" / "version_0_1"
#: What the pages install and make is here already.
SHELL = "set -euo pipefail\npip() { :; }\nmake() { mkdir -p .venv/bin && touch .venv/bin/activate; }\n"

pytestmark = pytest.mark.slow


def snippets(page: Path) -> str:
    """A shell script of the blocks of a page in bash and Python, in their order."""
    script = SHELL
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        script += block if language == "bash" else f"python - <<'END'\n{block}END\n"
    return script


def run(script: str, folder: Path, **variables: str) -> str:
    """Run a script in a folder; gives what it prints on stdout."""
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | here | variables,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr[-4000:]}"
    return ended.stdout


def put_songs(songs: list[Song]) -> None:
    """Put songs into the bucket as mp3, LANGUAGE/ARTIST/song.mp3."""
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    for song in songs:
        name = song.path.rpartition("/")[2].rpartition(".")[0]
        store.pipe(f"music/catalogue/{song.language}/{song.artist}/{name}.mp3", mp3(pcm(song), 44_100))


def test_from_a_bucket_of_mp3s_to_a_model_that_is_rolled_back(s3_server: str, tmp_path: Path) -> None:
    s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket="music")
    songs = plan_songs(CatalogueConfig(languages=2, artists_per_language=3, songs_per_artist=5, song_s=12))
    put_songs(songs[:-2])
    places = {"CATALOGUE": "s3://music/catalogue", "WORK": "s3://music/tagging"}
    at = Location("s3://music/tagging/tagged/tags")

    def models() -> list[str]:
        return (
            DeltaTable(at.uri, storage_options=storage_options(at)).to_pandas(columns=["model_id"])["model_id"].tolist()
        )

    printed = run(snippets(REPOSITORY / "docs" / "own-catalogue.md"), tmp_path)
    first = models()
    assert len(first) == len(songs) - 2 and len(set(first)) == 1 and "artist" in printed

    put_songs(songs[-2:])
    printed = run(snippets(REPOSITORY / "docs" / "operations.md"), tmp_path, **places)
    assert "exit status 0; 2 tagged, 0 failed" in printed and len(models()) == len(songs)

    printed = run(snippets(REPOSITORY / "docs" / "new-models.md"), tmp_path, **places)
    assert f"exit status 0; {len(songs)} tagged, 0 failed" in printed, "the new model tags all tracks again"
    assert "; 0 tagged, 0 failed" in printed.splitlines()[-1], "nor does the old one after going back"
    assert models() == [first[0]] * len(songs), "the tables are as before the new model"


def test_the_quick_start_and_the_readme(tmp_path: Path) -> None:
    (tmp_path / "demo-run").mkdir()
    shutil.copytree(DATA / "best", tmp_path / "demo-run" / "model")
    shutil.copytree(DATA / "tagged", tmp_path / "tagged")
    shutil.copy(DATA / "catalogue/audio/rosa-glenn/restless-island/01-open-wave.ogg", tmp_path / "song.mp3")
    build_manifest(Location(str(DATA / "catalogue")), None, Location(str(tmp_path / "manifest.parquet")))
    printed = run(snippets(REPOSITORY / "docs" / "quick-start.md"), tmp_path)
    assert printed.count("Rosa Glenn") > 3 and "artist of this segment" in printed
    run(snippets(REPOSITORY / "README.md").replace("s3://music/tagged", "tagged"), tmp_path)
    assert sum(file.stat().st_size for file in (tmp_path / "tags").glob("*.parquet")) > 0
