"""A night over files as labels deliver them: each is tagged, behind damage too, or fails with a name of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.models import save, untrained_artifact
from builders.sound_files import by_ffmpeg, encoded, mp3, song, with_hole

from mtl_core.audio.front_end import FrontEnd
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.storage.location import Location
from mtl_core.tables import delta

SECONDS = 30.0
HEALTHY: dict[str, Callable[[np.ndarray], bytes]] = {
    "in/song.wav": lambda y: encoded(y, "WAV", "PCM_16"),
    "in/song.m4a": lambda y: by_ffmpeg(y, "ipod", "aac"),
    "in/song.wma": lambda y: by_ffmpeg(y, "asf", "wmav2"),
}
DAMAGED: dict[str, Callable[[np.ndarray], bytes]] = {"in/hole.mp3": lambda y: with_hole(mp3(y), 0.5, 4096)}
BAD: dict[str, Callable[[np.ndarray], bytes]] = {
    "out/song.wav": lambda y: encoded(y, "WAV", "PCM_16"),
    "in/integers.wav": lambda y: encoded(32_768 * y, "WAV", "FLOAT"),
    "in/channels.wav": lambda y: encoded(np.repeat(y[:8_000, :1], 255, 1), "WAV", "PCM_16"),
}
#: track_id -> stage, error and `permanent` of its failure.
FAILURES = {
    "out/song.wav": ("fetch", "forbidden", False),
    "in/integers.wav": ("features", "out_of_range", True),
    "in/channels.wav": ("decode", "too_large", True),
}


@pytest.mark.usefixtures("local_ray")
def test_every_file_is_tagged_or_fails_with_its_name(tmp_path: Path) -> None:
    at, samples_NC, files = Location(str(tmp_path)), song(SECONDS), HEALTHY | DAMAGED | BAD
    for track_id, encode in files.items():
        (at / track_id).write_bytes(encode(samples_NC))
    manifest = pa.table({"track_id": [*files], "uri": [f"{at}/{track_id}" for track_id in files]})
    pq.write_table(manifest, tmp_path / "manifest.parquet")
    model = save(untrained_artifact(front_end=FrontEnd(sampling="spread", segments=8)), at / "model")
    options = TaggingOptions(allow_uri_prefix=(f"{at}/in",))
    (run,) = tag_catalogue(at / "manifest.parquet", model, at / "out", options).runs
    assert (run["planned"], run["tagged"], run["failed"]) == (len(files), len(HEALTHY | DAMAGED), len(BAD))
    tags, failures = (
        {row["track_id"]: row for row in table.to_pyarrow_table().to_pylist()}
        for name in ("tags", "failures")
        if (table := delta.open_table(at / "out", name))
    )
    assert {key: (row["stage"], row["error"], row["permanent"]) for key, row in failures.items()} == FAILURES
    assert tags.keys() == (HEALTHY | DAMAGED).keys()
    assert {row["n_segments"] for row in tags.values()} == {8}
    for track_id in HEALTHY:
        assert tags[track_id]["lost_s"] == 0 and tags[track_id]["duration_s"] == pytest.approx(SECONDS, abs=0.1)
    hole = tags["in/hole.mp3"]  # of 0.2 s, by which it is shorter: frames of mp3 carry no times
    assert 0 < hole["lost_s"] < 0.6 and hole["duration_s"] == pytest.approx(SECONDS, abs=0.3)
