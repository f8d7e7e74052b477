"""A deployment can replace the decoder, for formats of its own, in extraction and in tagging."""

from pathlib import Path

import numpy as np
import pytest
from builders import own_decoder
from builders.catalogue import write_audio
from builders.models import save

from mtl_core.dataset.mel_dataset import read_tracks
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.extract_mels import ExtractionOptions, extract_mels
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.storage.location import Location
from mtl_core.tables import delta


@pytest.fixture
def catalogue(tmp_path: Path) -> Location:
    """The same tone as song.wav and, in a format that only the own decoder knows, as song.au."""
    root = Location(str(tmp_path))
    tone_N = np.sin(2 * np.pi * 440 * np.arange(4 * own_decoder.RATE_HZ) / own_decoder.RATE_HZ)
    write_audio(root / "catalogue" / "song.wav", tone_N[:, None], own_decoder.RATE_HZ)
    (root / "catalogue" / "song.au").write_bytes(own_decoder.encode(tone_N))
    build_manifest(root / "catalogue", None, root / "manifest.parquet")
    return root


@pytest.mark.usefixtures("local_ray")
def test_tagging_with_an_own_decoder(catalogue: Location, untrained: Artifact) -> None:
    model, out = save(untrained, catalogue / "model"), catalogue / "out"
    tagged = tag_catalogue(catalogue / "manifest.parquet", model, out, TaggingOptions())
    assert [(run["tagged"], run["failed"]) for run in tagged.runs] == [(1, 1)]
    again = TaggingOptions(retry_failed=True)
    tagged = tag_catalogue(catalogue / "manifest.parquet", model, out, again, decoder="builders.own_decoder")
    assert [(run["tagged"], run["failed"]) for run in tagged.runs] == [(1, 0)]
    table = delta.open_table(out, "tags")
    assert table is not None
    au, wav = sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["track_id"])
    assert (au["track_id"], wav["track_id"]) == ("song.au", "song.wav")
    assert au["duration_s"] == wav["duration_s"] == 4.0
    np.testing.assert_allclose(au["embedding"], wav["embedding"], atol=1e-4)


@pytest.mark.usefixtures("local_ray")
def test_extraction_with_an_own_decoder(catalogue: Location) -> None:
    manifest, mels = catalogue / "manifest.parquet", catalogue / "mels"
    assert "1 of 2 tracks" in extract_mels(manifest, mels, ExtractionOptions())
    assert "2 of 2 tracks" in extract_mels(manifest, mels, ExtractionOptions(), decoder="builders.own_decoder")
    frames = read_tracks(mels, ["song.au", "song.wav"])
    np.testing.assert_allclose(frames["song.au"], frames["song.wav"], atol=0.02)  # the wav has 16 bits
