"""The nightly job is killed at every step. The same command finishes it: no track is lost, doubled or hidden."""

import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.models import save, untrained_artifact
from clusters import head
from nightly import (
    COUNTING,
    Nights,
    assert_exact,
    decode_counts,
    rows,
    run,
    small_artifact,
    two_nights,
    without_run_fields,
    write_track,
)
from points import (
    COMMIT,
    DELETE_FILE,
    DELETE_PLAN,
    FAILURES_COMMITTED,
    NEXT_SHARD_DONE,
    PHASES,
    TAGS_REWRITTEN,
    WRITE_LOG_ENTRY,
)

from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import MAX_TRACKS_PER_SHARD, SHARDS_PER_WORKER


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster that outlives the killed drivers; yields the environment that joins it."""
    with head(num_cpus=2) as environment:
        yield environment


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), 576, cluster)


@pytest.fixture(scope="module")
def undisturbed(nights: Nights, cluster: dict[str, str]) -> Path:
    """The tables after a second night that was not killed."""
    out = nights.out("undisturbed")
    ended = run("never", "driver", nights.command(out), cluster)
    assert ended.returncode == 0, ended.stderr
    assert_exact(nights, out)
    return out


def kill_at_each(
    nights: Nights,
    out: Path,
    points: list[tuple[str, str]],
    how: str,
    env: dict[str, str],
    decoder: str = COUNTING,
    model: str = "model",
) -> Counter[str]:
    """Run the same command once for each (phase, point), killed there; then run it to its end.

    Returns:
        The number of kills in each phase.
    """
    kills: Counter[str] = Counter()
    command = nights.command(out, model=model)
    for phase, point in points:
        start_s = time.monotonic()
        ended = run(point, how, command, env, decoder=decoder)
        print(f"{phase:20} {ended.returncode:4} {time.monotonic() - start_s:5.1f} s  {point}", flush=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        kills[phase] += 1
    ended = run("never", how, command, env, decoder=decoder)
    assert ended.returncode == 0, ended.stderr
    return kills


def assert_same_rows(out: Path, undisturbed: Path) -> None:
    for table in ("tags", "failures"):
        assert without_run_fields(rows(out, table)) == without_run_fields(rows(undisturbed, table)), table


@pytest.mark.slow
@pytest.mark.parametrize("how", ["driver", "group"])
def test_a_run_killed_at_every_step_ends_with_the_rows_of_an_undisturbed_run(
    nights: Nights, undisturbed: Path, cluster: dict[str, str], how: str
) -> None:
    """All points in turn. `driver`: only the driver dies, on a cluster that lives on. `group`: its own Ray dies too."""
    env = cluster if how == "driver" else {}
    all_points = [(phase, point) for phase in PHASES for point in PHASES[phase]]
    running = [(phase, point) for phase, point in all_points if phase == "running"]
    # The workers of a killed driver go on for some seconds and leave few shards for the next run. The second series
    # therefore kills only while shards run.
    total_kills: Counter[str] = Counter()
    for number, points in enumerate((all_points, running)):
        (nights.root / "decoded.log").unlink(missing_ok=True)
        out = nights.out(f"killed {how} {number}")
        kills = kill_at_each(nights, out, points, how, env)
        assert_exact(nights, out)
        assert_same_rows(out, undisturbed)
        counts = decode_counts(nights)
        n_repeated = sum(count - 1 for count in counts.values())
        print(f"{how}: kills {dict(kills)}; {len(counts)} tracks, {n_repeated} decodings were repeated")
        assert len(counts) == nights.n_planned
        assert n_repeated <= kills["running"] * 2 * SHARDS_PER_WORKER * MAX_TRACKS_PER_SHARD, (
            "a kill repeats no more than the shards that each of the 2 workers holds"
        )
        total_kills += kills
    assert all(total_kills[phase] >= 5 for phase in PHASES), total_kills


@pytest.mark.slow
@pytest.mark.parametrize("table", ["failures", "tags"])
def test_a_run_killed_while_the_log_is_written_ends_exact(
    nights: Nights, undisturbed: Path, cluster: dict[str, str], table: str
) -> None:
    """The kills come 0.1 to 8 ms after deltalake has begun a commit: before, while and after the log entry appears."""
    before_commit = nights.out(f"before commit {table}")
    point = f"{COMMIT}:enter" if table == "failures" else TAGS_REWRITTEN
    assert run(point, "driver", nights.command(before_commit), cluster).returncode == -signal.SIGKILL
    n_entries_before = count_log_entries(before_commit / table)
    new_entries = []
    for number, milliseconds in enumerate((0.1, 0.3, 1, 2, 4, 8)):
        out = Path(shutil.copytree(before_commit, nights.root / f"{table} {number}"))
        ended = run(f"{point}>{WRITE_LOG_ENTRY}:{milliseconds}", "driver", nights.command(out), cluster)
        assert ended.returncode == -signal.SIGKILL
        new_entries.append(count_log_entries(out / table) - n_entries_before)
        ended = run("never", "driver", nights.command(out), cluster)
        assert ended.returncode == 0, ended.stderr
        assert_exact(nights, out)
        assert_same_rows(out, undisturbed)
    print(f"{table}: new entries in the log after each kill: {new_entries}")


#: The points that a run from embeddings passes: it has no failures to commit or to clear, and its end is no end of the
#: command.
FROM_EMBEDDINGS = [
    *((phase, point) for phase in ("planning", "verifying") for point in PHASES[phase]),
    *(("running", point) for point in PHASES["running"][:2]),
    ("committing", f"{COMMIT}:enter"),
    *(("committing", point) for point in PHASES["between the commits"][1:]),
    *(("committing", point) for point in PHASES["committing tags"]),
    *(("after the commits", point) for point in PHASES["after the commits"] if "cleared" not in point),
]
FROM_EMBEDDINGS = sorted(
    (pair for pair in FROM_EMBEDDINGS if DELETE_FILE not in pair[1]),
    key=lambda pair: ("planning", "running", "verifying", "committing", "after the commits").index(pair[0]),
)


@pytest.mark.slow
def test_a_night_from_embeddings_and_from_audio_survives_kills_in_both_runs(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    """A model with other heads: its night takes the unchanged tracks from the table, and reads the others."""
    nights = two_nights(tmp_path, 320, cluster)
    at = Location(str(tmp_path))
    model = small_artifact()
    labels = {"artist": tuple("stuvwxyz"), "language": ("de", "en", "fr")}
    other = untrained_artifact(labels, front_end=model.front_end)
    other.model.trunk.load_state_dict(model.model.trunk.state_dict())
    save(other, at / "other")
    # The first night with the old model, of the catalogue as it is now; then half of the good tracks change.
    ended = run("never", "driver", nights.command(nights.root / "first night"), cluster)
    assert ended.returncode == 0, ended.stderr
    changed = sorted(nights.good)[::2]
    for number, track_id in enumerate(changed):
        write_track(at / "catalogue" / track_id, 1000 + number)
    build_manifest(at / "catalogue", None, at / "second.parquet")
    (nights.root / "decoded.log").unlink(missing_ok=True)
    undisturbed = nights.out("undisturbed")
    ended = run("never", "driver", nights.command(undisturbed, model="other"), cluster)
    assert ended.returncode == 0, ended.stderr
    assert decode_counts(nights).keys() == {*changed, *nights.bad}, "the others were taken from the table"
    assert_exact(nights, undisturbed)
    out = nights.out("killed")
    # No track that failed before is tagged in this night, so no failure is cleared.
    clearing = {point for point in PHASES["after the commits"] if "cleared" in point and WRITE_LOG_ENTRY in point}
    audio = [(phase, point) for phase in PHASES for point in PHASES[phase] if point not in clearing]
    kills = kill_at_each(nights, out, [*FROM_EMBEDDINGS, *audio], "driver", cluster, model="other")
    print(f"kills {dict(kills)}")
    assert_exact(nights, out)
    assert_same_rows(out, undisturbed)
    sources = [json.loads(file.read_bytes())["source"] for file in sorted((out / "runs").glob("[!_]*.json"))]
    assert sources[-2:] == ["embeddings", "audio"]


def count_log_entries(table: Path) -> int:
    return len(list((table / "_delta_log").glob("*.json")))


def test_a_run_survives_three_kills(tmp_path: Path, local_ray: None) -> None:
    """Killed while shards run, between the two commits, and after the last commit, on a few tracks."""
    import ray

    env = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    nights = two_nights(tmp_path, 64, env, DECODER)
    out = nights.out("killed")
    points = [("running", NEXT_SHARD_DONE), ("between", FAILURES_COMMITTED), ("after", f"{DELETE_PLAN}:enter")]
    assert kill_at_each(nights, out, points, "driver", env, DECODER).total() == 3
    assert_exact(nights, out)
