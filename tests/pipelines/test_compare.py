"""What is wrong with the inputs of a comparison is told before any model predicts."""

from pathlib import Path

import pytest
from builders.models import save

from mtl_core.errors import InputError
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.compare import ComparisonOptions, compare
from mtl_core.storage.location import Location


def test_a_place_without_tables_is_refused_before_the_mels_are_read(untrained: Artifact, tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    model_at = save(untrained, at / "model")
    with pytest.raises(InputError, match="nights has no table of tags"):
        compare(model_at, model_at, at / "mels", at / "out", ComparisonOptions(), at / "nights")
    assert not (at / "out").names()
