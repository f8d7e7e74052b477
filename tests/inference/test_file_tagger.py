"""Tagging files in Python: one dict a path, in order; a bad file is a dict with its reason."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import mtl_core
from mtl_core.errors import InputError
from mtl_core.schema import TAGS

DATA = Path(__file__).parents[1] / "fixtures" / "version_0_1"
SONGS = sorted(DATA.glob("catalogue/audio/**/*.*3"))


def test_a_dict_a_path_in_order_with_the_tags_of_the_job() -> None:
    paths = [SONGS[1], "missing.mp3", SONGS[0], DATA / "catalogue/bad/text.mp3", SONGS[1]]
    with mtl_core.load_tagger(DATA / "best") as tagger:
        rows = tagger.tag(paths)
        again = tagger.tag(paths[:1])
    assert [row["track_id"] for row in rows] == [row["uri"] for row in rows] == [str(path) for path in paths]
    assert list(rows[0]) == TAGS.names
    job = {row["track_id"]: row for row in pq.read_table(DATA / "tags_best.parquet").to_pylist()}
    for row in (rows[0], rows[2], rows[4], again[0]):
        expected = job[str(Path(row["uri"]).relative_to(DATA / "catalogue"))]
        assert (row["artist"], row["language"]) == (expected["artist"], expected["language"])
        assert row["artist_confidence"] == pytest.approx(expected["artist_confidence"], abs=1e-5)
        assert np.allclose(row["embedding"], expected["embedding"], atol=1e-5)
    failures = [(row["stage"], row["error"]) for row in (rows[1], rows[3])]
    assert failures == [("fetch", "not_found"), ("decode", "not_audio")]
    assert list(rows[1]) == ["track_id", "uri", "content_id", "stage", "error", "message"]


def test_a_folder_that_is_not_an_artifact_is_refused() -> None:
    with pytest.raises(InputError, match="is not a model artifact"):
        mtl_core.load_tagger(DATA)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        _ = mtl_core.load_model
