"""A node of 4 GiB with 8 CPUs: as many workers start as it has memory for, and files that take all memory end none."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from builders.models import save
from clusters import head, joined
from nightly import JOB, rows, small_artifact, start, write_track

from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location

NODE_BYTES, NUM_CPUS, N_GREEDY, N_GOOD = 4 << 30, 8, 16, 160
GROUPS = Path("/sys/fs/cgroup/memory")  # version 1


@contextlib.contextmanager
def control_group() -> Iterator[list[str]]:
    """The start of a command that runs with 4 GiB, as in a container: it sees its own control group alone."""
    if os.getuid() or not (GROUPS / "memory.limit_in_bytes").exists():
        pytest.skip("needs root, and control groups of version 1")
    group = GROUPS / f"mtl-core-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(NODE_BYTES))
        enter = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {GROUPS} && exec "$0" "$@"'
        yield ["unshare", "--mount", "bash", "-c", enter]
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):  # its last processes are ending
                group.rmdir()
                break
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["logical", "control group"])
def test_greedy_files_end_no_worker(tmp_path: Path, how: str) -> None:
    at = Location(str(tmp_path))
    for number in range(N_GOOD):
        write_track(at / "catalogue" / f"{number:03}.wav", number)
    for number in range(N_GREEDY):
        (at / "catalogue" / f"{number * 10:03}-greedy.wav").write_bytes(b"allocate")
    build_manifest(at / "catalogue", None, at / "manifest.parquet")
    save(small_artifact(), at / "model")
    command = [str(JOB), "--manifest", f"{at}/manifest.parquet", "--model", f"{at}/model", "--out", f"{at}/out",
               "--max-failed-share", "1"]  # fmt: skip
    with contextlib.ExitStack() as stack:
        if how == "logical":
            flags, prefix = [f"--memory={int(0.7 * NODE_BYTES)}"], []
            command.append("--decode-memory-mib=1024")
        else:
            flags, prefix = [], stack.enter_context(control_group())
        store_bytes = int(0.3 * NODE_BYTES)  # Ray's default
        env = stack.enter_context(head(NUM_CPUS, *flags, object_store_bytes=store_bytes, prefix=prefix))
        stack.enter_context(joined(env))
        offered_mib = ray.cluster_resources()["memory"] / 2**20
        job = start("never", "driver", command, env)
        n_workers = 0
        while job.poll() is None:
            n_workers = max(n_workers, NUM_CPUS - int(ray.available_resources().get("CPU", 0)))
            time.sleep(0.5)
        stdout, stderr = job.communicate()
    assert job.returncode == 0, stderr
    assert len(rows(at / "out", "tags")) == N_GOOD
    failures = [row["error"] for row in rows(at / "out", "failures")]
    assert len(failures) == N_GREEDY and set(failures) <= {"out_of_memory", "killed"}
    decoded = (tmp_path / "decoded.log").read_text().split()
    good = [name for name in decoded if "greedy" not in name]
    assert len(good) == len(set(good)) == N_GOOD, "a worker was ended, and its tracks were decoded again"
    counts = {error: failures.count(error) for error in sorted(set(failures))}
    print(f"{how}: {offered_mib:.0f} MiB offered, {n_workers} workers on {NUM_CPUS} CPUs; {counts}; {stdout} {stderr}")
    assert n_workers == offered_mib // 512
