"""What version 0.1 wrote stays usable: its models tag, its mels train and evaluate, its tables are continued."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.pipelines.evaluate import EvaluationOptions, evaluate
from mtl_core.pipelines.extract_mels import ExtractionOptions, extract_mels
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.schema import FRONT_END_HASH
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_table

OLD = Path(__file__).parent / "fixtures" / "version_0_1"
ONE_BIT = 2.0**-10  # the last bit of a float16, as a part of its value
TAGS_OF = {"paper": "tagged/tags/part-*.parquet", "best": "tags_best.parquet"}


def tags(file: Path) -> dict[str, dict]:
    return {row["track_id"]: row for row in pq.read_table(file).to_pylist()}


@pytest.fixture
def manifest(tmp_path: Path) -> Location:
    """The manifest of the tracks whose audio is among the fixtures: ogg and mp3."""
    rows = pq.read_table(OLD / "manifest.parquet").to_pylist()
    rows = [
        row | {"uri": str(OLD / "catalogue" / row["track_id"]), "content_id": None}
        for row in rows
        if (OLD / "catalogue" / row["track_id"]).exists()
    ]
    schema = pq.read_schema(OLD / "manifest.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "manifest.parquet")
    return Location(str(tmp_path / "manifest.parquet"))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("model", ["paper", "best"])
def test_an_old_model_gives_the_tags_it_gave(tmp_path: Path, manifest: Location, model: str) -> None:
    out = Location(str(tmp_path / "out"))
    tag_catalogue(manifest, Location(str(OLD / model)), out, TaggingOptions())
    table = open_table(out, "tags")
    assert table is not None
    (old_file,) = OLD.glob(TAGS_OF[model])
    old, new = tags(old_file), {row["track_id"]: row for row in table.to_pyarrow_table().to_pylist()}
    assert len(new) == 8
    for track_id, row in new.items():
        for column in ("artist", "language", "n_segments", "duration_s", "model_id"):
            assert row[column] == old[track_id][column], (track_id, column)
        for task in ("artist", "language"):
            assert row[f"{task}_confidence"] == pytest.approx(old[track_id][f"{task}_confidence"], abs=1e-6)
            assert [top["label"] for top in row[f"{task}_top"]] == [
                top["label"] for top in old[track_id][f"{task}_top"]
            ]
        np.testing.assert_allclose(row["embedding"], old[track_id]["embedding"], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_mels_differ_from_the_old_ones_by_the_last_bit_of_a_few_values(tmp_path: Path, manifest: Location) -> None:
    extract_mels(manifest, Location(str(tmp_path / "mels")), ExtractionOptions(sampling="paper"))
    new_file, old_file = (next(folder.glob("mels-*.parquet")) for folder in (tmp_path / "mels", OLD / "mels"))
    assert pq.read_schema(new_file).metadata[FRONT_END_HASH] == pq.read_schema(old_file).metadata[FRONT_END_HASH]
    new, old = (
        {
            (row["track_id"], row["segment"], row["start_s"]): mel_TF
            for file in folder.glob("mels-*.parquet")
            for table in [pq.read_table(file)]
            for row, mel_TF in zip(
                table.drop_columns(["mel"]).to_pylist(), table["mel"].combine_chunks().to_numpy_ndarray(), strict=True
            )
        }
        for folder in (tmp_path / "mels", OLD / "mels")
    )
    assert len(new) == 16 and new.keys() <= old.keys()
    new_STF, old_STF = np.stack([*new.values()]), np.stack([old[key] for key in new])
    np.testing.assert_allclose(new_STF, old_STF, rtol=ONE_BIT, atol=1e-6)
    assert (new_STF == old_STF).mean() > 0.99, "another decoder's samples differ by some 1e-6"


@pytest.mark.usefixtures("local_ray")
def test_old_mels_give_the_scores_they_gave(tmp_path: Path) -> None:
    """Scores of the old model on the old mels, intervals included: the same seed draws the same songs.

    The calibration error is computed in another way since.
    """
    out = Location(str(tmp_path / "report"))
    evaluate(Location(str(OLD / "paper")), Location(str(OLD / "mels")), out, EvaluationOptions(resamples=20))
    new, old = (json.loads((folder / "metrics.json").read_bytes()) for folder in (tmp_path / "report", OLD / "report"))
    new_scores, old_scores = (
        {key: value for key, value in flat(of["tasks"]).items() if not re.search("ece|reliability", key)}
        for of in (new, old)
    )
    assert new_scores.keys() == old_scores.keys()
    for key, value in old_scores.items():
        assert new_scores[key] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), key


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_old_mels_train_a_new_model(tmp_path: Path) -> None:
    out = Location(str(tmp_path / "model"))
    summary = train(Location(str(OLD / "mels")), out, TrainOptions(recipe="demo", split="none", epochs=1))
    assert "epoch 1 of 1" in summary and (tmp_path / "model" / "model.json").exists()


def test_a_night_over_old_tables_with_the_old_model_plans_nothing(tmp_path: Path) -> None:
    shutil.copytree(OLD / "tagged", tmp_path / "out")
    before = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    tagged = tag_catalogue(
        Location(str(OLD / "manifest.parquet")),
        Location(str(OLD / "paper")),
        Location(str(tmp_path / "out")),
        TaggingOptions(),
    )
    assert (tagged.runs, tagged.already_done) == ([], 18)
    after = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    assert after == before


@pytest.mark.usefixtures("local_ray")
def test_a_night_over_old_tables_with_another_model_adds_lost_s(tmp_path: Path, manifest: Location) -> None:
    out = Location(str(tmp_path / "out"))
    shutil.copytree(OLD / "tagged", tmp_path / "out")
    (run,) = tag_catalogue(manifest, Location(str(OLD / "best")), out, TaggingOptions()).runs
    table = open_table(out, "tags")
    assert table is not None and (run["tagged"], run["failed"]) == (8, 2)
    rows = table.to_pyarrow_table().to_pylist()
    assert [len(rows), len({row["track_id"] for row in rows})] == [16, 16]
    assert {(row["run_id"] == run["run_id"], row["lost_s"]) for row in rows} == {(True, 0.0), (False, None)}


def flat(values: object, path: str = "") -> dict[str, object]:
    """Nested JSON values by their paths."""
    if isinstance(values, dict):
        return {k: v for key, value in values.items() for k, v in flat(value, f"{path}/{key}").items()}
    if isinstance(values, list):
        return {k: v for i, value in enumerate(values) for k, v in flat(value, f"{path}/{i}").items()}
    return {path: values}
