"""The table at the end of `make demo`."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from builders.models import save

from mtl_core.errors import InputError
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.demo_table import out_of_fold_tags
from mtl_core.schema import OUT_OF_FOLD
from mtl_core.storage.location import Location

#: track_id, known, artist, its tag, probability, language, its tag, probability.
ROWS = [
    ("ada-1.wav", True, "Ada", "Ada", 0.99, "xx", "xx", 0.98),
    ("ada-2.wav", True, "Ada", None, 0.51, "xx", "xx", 0.98),
    ("ben.wav", True, "Ben", "Ada", 0.61, "xx", None, 0.47),
    ("cy.wav", False, "Cy", None, 0.36, "yy", None, 0.4),
]


def test_a_line_for_an_artist_and_the_number_of_right_names(tmp_path: Path, untrained: Artifact) -> None:
    folder = Location(str(tmp_path))
    save(untrained, folder / "model")
    with pytest.raises(InputError, match="not cross-fitted, run `make demo`"):
        out_of_fold_tags(folder)
    rows = [
        {
            "track_id": track_id,
            "fold": 0,
            "known": known,
            "n_segments": 3,
            "artist": artist,
            "artist_tag": artist_tag,
            "artist_top": [{"label": "Ada", "probability": p}],
            "language": language,
            "language_tag": language_tag,
            "language_top": [{"label": "xx", "probability": q}],
        }
        for track_id, known, artist, artist_tag, p, language, language_tag, q in ROWS
    ]
    save(replace(untrained, out_of_fold=pa.Table.from_pylist(rows, schema=OUT_OF_FOLD)), folder / "model")
    lines = out_of_fold_tags(folder).splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["ada-1.wav", "Ada", "Ada", "0.99", "xx", "xx", "0.98"],
        ["ben.wav", "Ben", "Ada", "0.61", "xx", "unknown", "0.47"],
    ]
    assert lines[3:5] == [
        "artist of all 3: 2 named, 1 of these right, 1 left unnamed",
        "language of all 3: 2 named, 2 of these right, 1 left unnamed",
    ]
    assert lines[7].split() == ["cy.wav", "Cy", "unknown", "0.36", "yy", "unknown", "0.40"]
    assert lines[1].index("0.99") == lines[7].index("0.36"), "the columns are aligned"
