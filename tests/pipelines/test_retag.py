"""A night with another model of the same trunk takes its tags from the table, and reads audio for the other tracks."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from builders.catalogue import write_catalogue
from builders.models import save

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Stop
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.night.run_record import AUDIO, EMBEDDINGS
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.pipelines.tag_changes import find_tag_changes
from mtl_core.storage.location import Location
from mtl_core.tables import delta

N_TRACKS = 8
#: A model is sure after four segments where the first is 1.2 times as probable as the second.
STOP = Stop(odds_from=1.2, named_from=-1e30, null_below=-1e30)
WITH_RULE = Aggregation(
    threshold={"artist": 0.15},
    rounds=tuple(
        Round(segments=n, numbers=Aggregation(threshold={"artist": 0.15}), stop=dict.fromkeys(TASKS, STOP))
        for n in (4, 8)
    ),
)


def rows(out: Location) -> dict[str, dict]:
    table = delta.open_table(out, "tags")
    assert table is not None
    return {row["track_id"]: row for row in table.to_pyarrow_table().to_pylist()}


def with_new_heads(model: Artifact, artists: str) -> Artifact:
    """The same trunk with heads of these artists, one letter each."""
    labels = {"artist": tuple(artists), "language": ("de", "en", "fr")}
    torch.manual_seed(1)
    network = MultitaskCNN(ModelConfig(classes={task: len(names) for task, names in labels.items()}))
    network.trunk.load_state_dict(model.model.trunk.state_dict())
    return replace(model, model=network, vocabularies={task: Vocabulary(names) for task, names in labels.items()})


@pytest.fixture(scope="module")
def old(untrained: Artifact) -> Artifact:
    return replace(untrained, front_end=FrontEnd(sampling="spread", segments=16), aggregation=WITH_RULE)


@pytest.fixture(scope="module")
def tagged(local_ray: None, tmp_path_factory: pytest.TempPathFactory, old: Artifact) -> Path:
    """A catalogue of 52 s songs, tagged by the old model in `out`."""
    folder = tmp_path_factory.mktemp("tagged")
    at = Location(str(folder))
    write_catalogue(at / "catalogue", N_TRACKS, seconds=52.0)
    build_manifest(at / "catalogue", None, at / "all.parquet")
    everything = pq.read_table(folder / "all.parquet")
    good = everything.filter(pc.starts_with(everything["track_id"], "good/"))
    pq.write_table(good, folder / "m.parquet")
    tag_catalogue(at / "m.parquet", save(old, at / "old"), at / "out", TaggingOptions())
    return folder


@pytest.fixture
def at(tagged: Path, tmp_path: Path) -> Iterator[Location]:
    """The manifest, and a copy of the tables; audio files that a test moves away come back."""
    shutil.copytree(tagged / "out", tmp_path / "out")
    shutil.copy(tagged / "m.parquet", tmp_path)
    yield Location(str(tmp_path))
    for file in tagged.rglob("*.away"):
        file.rename(file.with_suffix(""))


def test_tags_from_the_table_are_those_of_the_audio(at: Location, tagged: Path, old: Artifact) -> None:
    new = save(with_new_heads(old, "uvwxyz"), at / "new")
    tag_catalogue(at / "m.parquet", new, at / "from audio", TaggingOptions())
    before, from_audio = rows(at / "out"), rows(at / "from audio")
    same = {i for i in before if before[i]["n_segments"] == from_audio[i]["n_segments"]}
    for track_id in same:
        file = tagged / "catalogue" / track_id
        file.rename(f"{file}.away")
    result = tag_catalogue(at / "m.parquet", new, at / "out", TaggingOptions())
    after = rows(at / "out")
    table, *audio = result.runs
    assert (table["source"], table["planned"], table["failed"]) == (EMBEDDINGS, N_TRACKS, 0)
    assert table["tagged"] >= len(same) and table["left"] == table["refused"] == N_TRACKS - table["tagged"]
    assert [(run["source"], run["planned"]) for run in audio] == [(AUDIO, table["refused"])][: table["refused"]]
    assert after.keys() == before.keys()
    model_id = artifact.model_id(artifact.load_artifact(new))
    for track_id, row in after.items():
        assert row["model_id"] == model_id
        for name in ("uri", "content_id", "duration_s", "lost_s", "trunk_id"):
            assert row[name] == before[track_id][name]
        if row["n_segments"] == from_audio[track_id]["n_segments"]:
            assert [row[task] for task in TASKS] == [from_audio[track_id][task] for task in TASKS]
            for task in TASKS:
                assert row[f"{task}_confidence"] == pytest.approx(from_audio[track_id][f"{task}_confidence"], abs=1e-6)
    assert tag_catalogue(at / "m.parquet", new, at / "out", TaggingOptions()).runs == []


def test_other_content_too_few_segments_or_another_trunk_are_read(at: Location, old: Artifact) -> None:
    manifest = pq.read_table(at.path + "/m.parquet")
    changed = pa.array([None, *manifest["content_id"].to_pylist()[1:]], pa.string())
    pq.write_table(manifest.set_column(2, "content_id", changed), at.path + "/changed.parquet")
    n_whole = sum(row["n_segments"] == 16 for row in list(rows(at / "out").values())[1:])
    new = save(with_new_heads(old, "uvwxyz"), at / "new")
    table, audio = tag_catalogue(at / "changed.parquet", new, at / "out", TaggingOptions(exit="never")).runs
    assert (table["planned"], table["tagged"]) == (N_TRACKS - 1, n_whole)
    assert audio["planned"] == audio["tagged"] == N_TRACKS - n_whole
    assert {row["n_segments"] for row in rows(at / "out").values()} == {16}
    paper = save(replace(old, front_end=FrontEnd()), at / "paper")
    (run,) = tag_catalogue(at / "m.parquet", paper, at / "out", TaggingOptions(limit=1)).runs
    assert run["source"] == AUDIO, "another front end is another trunk"


def test_with_only_changed_the_other_rows_stay_as_they_are(at: Location, old: Artifact) -> None:
    """The new model differs in a threshold that no track is near, then in one that all artists are below."""
    before = rows(at / "out")
    near = save(replace(old, aggregation=replace(WITH_RULE, temperature=dict.fromkeys(TASKS, 1.01))), at / "near")
    (run,) = tag_catalogue(at / "m.parquet", near, at / "out", TaggingOptions(only_changed=True)).runs
    assert (run["planned"], run["tagged"], run["left"], run["refused"]) == (N_TRACKS, 0, N_TRACKS, 0)
    assert rows(at / "out") == before
    high = replace(WITH_RULE, threshold={"artist": 0.99}, rounds=())
    everything = save(replace(old, aggregation=high), at / "high")
    options = TaggingOptions(only_changed=True, segments=4)
    runs = tag_catalogue(at / "m.parquet", everything, at / "out", options).runs
    of_four = {i for i, row in before.items() if row["n_segments"] == 4}
    assert (runs[0]["tagged"], runs[0]["refused"]) == (len(of_four), N_TRACKS - len(of_four))
    assert {row["artist"] for row in rows(at / "out").values()} == {None}


@pytest.mark.parametrize("same_trunk", [True, False], ids=["embeddings", "audio"])
def test_how_many_tags_a_model_would_change_is_what_a_night_changes(
    at: Location, old: Artifact, same_trunk: bool
) -> None:
    """The new model names no artist, and knows other languages."""
    silent = replace(WITH_RULE, threshold={"artist": 2.0}, rounds=())
    new = replace(with_new_heads(old, "abcdefg"), aggregation=silent)
    if not same_trunk:
        new = replace(new, front_end=FrontEnd(sampling="spread", segments=8))
    new_at = save(new, at / "new")
    before = rows(at / "out")
    changes = find_tag_changes(
        load_cpu_model(new_at), new_at, artifact.model_id(old), at / "out", seed=0, decoded_tracks=5
    )
    assert changes.source == ("embeddings" if same_trunk else "audio")
    assert changes.n + changes.left_out == (N_TRACKS if same_trunk else 5) and changes.n >= 3
    n_named = sum(row["artist"] is not None for row in before.values())
    assert changes.tasks["artist"]["null_now"] <= n_named
    assert changes.tasks["artist"]["named_now"] == changes.tasks["artist"]["another_name"] == 0
    tag_catalogue(at / "m.parquet", new_at, at / "out", TaggingOptions())
    after = rows(at / "out")
    changed = sum(before[i]["language"] != after[i]["language"] for i in before)
    if changes.n == N_TRACKS:
        assert changes.tasks["language"]["same"] == N_TRACKS - changed
        assert changes.tasks["artist"]["null_now"] == n_named


def test_a_table_without_tags_of_the_model_in_use_is_refused(at: Location, old: Artifact) -> None:
    new_at = save(with_new_heads(old, "uv"), at / "new")
    new = load_cpu_model(new_at)
    for out, message in ((at / "out", "has no row of the model other"), (at / "nothing", "has no table of tags")):
        with pytest.raises(InputError, match=message):
            find_tag_changes(new, new_at, "other", out, seed=0, decoded_tracks=5)
