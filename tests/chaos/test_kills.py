"""SIGKILL at every step of the nightly run: the same command ends it, and no track is lost, doubled or hidden."""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from nightly import COUNTING, Nights, assert_exact, decoded, rows, run, strip, two_nights

from mtl_core.storage.work_plan import MAX_TRACKS_PER_SHARD, SHARDS_PER_WORKER

STORAGE, SHARDS, WORKERS = (
    "mtl_core.storage.location:",
    "mtl_core.storage.work_plan:",
    "mtl_core.pipelines.workers.progress:",
)
PLANNING, COMMIT, DELTA = "mtl_core.tables.planning:", "mtl_core.tables.commit:", "mtl_core.tables.delta:"
WRITE, READ = f"{STORAGE}Location.write_bytes", f"{STORAGE}Location.read_bytes"
PROGRESS = "mtl_core.pipelines.workers.progress:Progress.add:exit"
LOG = "deltalake:DeltaTable.create_write_transaction"

#: phase -> points of killed_job.py; each comes after the one before, so that a run meets them all in their order.
PHASES: dict[str, list[str]] = {
    "planning": [
        f"{PLANNING}plan_tracks:enter",
        f"{PLANNING}plan_tracks:exit",
        f"{WRITE}@/plan-0:enter",
        f"{SHARDS}write_plan:enter>pathlib:Path.replace@plan-0:enter",  # the draft is written and not yet in its place
        f"{WRITE}@/plan-0:exit",
        f"{WRITE}@/plan.json:enter",
        f"{WRITE}@/plan.json:exit",
    ],
    "running": [
        f"{WORKERS}Progress.watch:enter",
        f"{PROGRESS}:1",
        f"{PROGRESS}:1>time:monotonic:700",  # some time after, between two shards' ends
    ],
    "verifying": [
        f"{COMMIT}verify_and_merge:enter",
        f"{READ}@/tags-0:exit:3",
        f"{COMMIT}verify_and_merge:enter>mtl_core.tables.data_files:write_file:enter",
        f"{COMMIT}verify_and_merge:enter>mtl_core.tables.data_files:write_file:2",
        f"{COMMIT}verify_and_merge:enter>mtl_core.tables.data_files:write_file:exit",
        f"{COMMIT}verify_and_merge:exit",
    ],
    "committing failures": [
        f"{COMMIT}commit_run:enter",
        f"{COMMIT}commit_run:enter>{COMMIT}rewrite_without:enter",
        f"{COMMIT}commit_run:enter>{COMMIT}rewrite_without:exit",
        f"{COMMIT}commit_run:enter>mtl_core.tables.data_files:write_file:exit",
        f"{COMMIT}commit_run:enter>{LOG}:enter",
    ],
    "between the commits": [
        f"{COMMIT}commit_run:enter>{LOG}:exit",
        f"{COMMIT}rewrite_without@tags-kept:enter",
        f"{COMMIT}rewrite_without@tags-kept:enter>mtl_core.tables.data_files:write_file:enter",
        f"{COMMIT}rewrite_without@tags-kept:enter>mtl_core.tables.data_files:write_file:1",
        f"{COMMIT}rewrite_without@tags-kept:enter>mtl_core.tables.data_files:write_file:exit",
    ],
    "committing tags": [
        f"{COMMIT}rewrite_without@tags-kept:exit",
        f"{COMMIT}rewrite_without@tags-kept:exit>{COMMIT}commit_actions:enter",
        f"{COMMIT}rewrite_without@tags-kept:exit>{DELTA}CommitProperties:enter",
        f"{COMMIT}rewrite_without@tags-kept:exit>{LOG}:enter",
        f"{COMMIT}rewrite_without@tags-kept:exit>{LOG}:exit",
    ],
    "right after": [
        f"{COMMIT}rewrite_without@cleared-kept:enter",
        f"{COMMIT}rewrite_without@cleared-kept:exit>{LOG}:enter",
        f"{COMMIT}rewrite_without@cleared-kept:exit>{LOG}:exit",
        f"{WRITE}@/runs/:enter",
        f"{WRITE}@/runs/:exit",
        f"{SHARDS}delete_plan:enter",
        f"{SHARDS}delete_plan:enter>os:unlink@done-:enter:4",
        f"{SHARDS}delete_plan:exit",
        f"{STORAGE}Location.delete@_lease:enter",
    ],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray that outlives the killed drivers; yields what they need to join it."""
    from clusters import head

    with head(num_cpus=2) as environment:
        yield environment


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), 576, cluster)


@pytest.fixture(scope="module")
def undisturbed(nights: Nights, cluster: dict[str, str]) -> Path:
    out = nights.out("undisturbed")
    ended = run("never", "driver", nights.command(out), cluster)
    assert ended.returncode == 0, ended.stderr
    assert_exact(nights, out)
    return out


def chain(
    nights: Nights, out: Path, points: list[tuple[str, str]], how: str, env: dict[str, str], decoder: str = COUNTING
) -> Counter[str]:
    """Kill the same command at one point after another, then let it end. Returns the kills by phase."""
    killed: Counter[str] = Counter()
    for phase, point in points:
        begun = time.monotonic()
        ended = run(point, how, nights.command(out), env, decoder=decoder)
        print(f"{phase:20} {ended.returncode:4} {time.monotonic() - begun:5.1f} s  {point}", flush=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        killed[phase] += 1
    ended = run("never", how, nights.command(out), env, decoder=decoder)
    assert ended.returncode == 0, ended.stderr
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("how", ["driver", "group"])
def test_killed_at_every_step_it_ends_exact(
    nights: Nights, undisturbed: Path, cluster: dict[str, str], how: str
) -> None:
    """All the points one after another: the driver alone on a cluster that lives on, then with a Ray of its own."""
    env = cluster if how == "driver" else {}
    all_points = [(phase, point) for phase in PHASES for point in PHASES[phase]]
    # A killed driver's workers go on for seconds and leave little to run for the next: the second chain adds to these.
    killed: Counter[str] = Counter()
    for number, points in enumerate((all_points, [one for one in all_points if one[0] == "running"])):
        (nights.root / "decoded.log").unlink(missing_ok=True)
        out = nights.out(f"killed {how} {number}")
        kills = chain(nights, out, points, how, env)
        assert_exact(nights, out)
        for name in ("tags", "failures"):
            assert strip(rows(out, name)) == strip(rows(undisturbed, name)), "as if nothing had happened"
        twice = sum(count - 1 for count in decoded(nights).values())
        print(f"{how}: kills {dict(kills)}; {len(decoded(nights))} tracks, {twice} times one was decoded again")
        assert len(decoded(nights)) == nights.n_planned
        assert twice <= kills["running"] * 2 * SHARDS_PER_WORKER * MAX_TRACKS_PER_SHARD, (
            "a kill costs a worker the shards it holds"
        )
        killed += kills
    assert all(killed[phase] >= 5 for phase in PHASES), killed


@pytest.mark.slow
@pytest.mark.parametrize("step", ["failures", "tags"])
def test_killed_while_the_log_is_written_it_ends_exact(
    nights: Nights, undisturbed: Path, cluster: dict[str, str], step: str
) -> None:
    """Some time after the library has begun a transaction: before, while or after its entry appears in the log."""
    verified = nights.out(f"verified {step}")
    chain_to = f"{COMMIT}commit_run:enter" if step == "failures" else f"{COMMIT}rewrite_without@tags-kept:exit"
    assert run(chain_to, "driver", nights.command(verified), cluster).returncode == -signal.SIGKILL
    found = []
    for number, milliseconds in enumerate((0.1, 0.3, 1, 2, 4, 8)):
        out = Path(shutil.copytree(verified, nights.root / f"{step} {number}"))
        point = f"{chain_to}>{LOG}:{milliseconds}"
        assert run(point, "driver", nights.command(out), cluster).returncode == -signal.SIGKILL
        logged = len(list((out / step / "_delta_log").glob("*.json")))
        found.append(logged - len(list((verified / step / "_delta_log").glob("*.json"))))
        ended = run("never", "driver", nights.command(out), cluster)
        assert ended.returncode == 0, ended.stderr
        assert_exact(nights, out)
        for name in ("tags", "failures"):
            assert strip(rows(out, name)) == strip(rows(undisturbed, name)), "as if nothing had happened"
    print(f"{step}: entries in the log after each kill: {found}")


def test_three_kills(tmp_path: Path, local_ray: None) -> None:
    """While it runs, between the commits, right after the last: on a few tracks, on every change."""
    import ray

    env = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    nights = two_nights(tmp_path, 64, env, "mtl_core.audio.decoder_process")
    out = nights.out("killed")
    points = {
        "running": f"{PROGRESS}:1",
        "between": f"{COMMIT}commit_run:enter>{LOG}:exit",
        "after": f"{SHARDS}delete_plan:enter",
    }
    assert chain(nights, out, list(points.items()), "driver", env, "mtl_core.audio.decoder_process").total() == 3
    assert_exact(nights, out)
