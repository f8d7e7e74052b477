"""What a slow S3 costs: python bench/bench_s3.py [N [REPEATS [MODEL [FOLDER]]]]

One worker tags the same N files (default 70) from a folder and from an S3 endpoint with 100 ms of latency and 20 MB/s
a connection (slow_proxy.py before moto's server), in turns, REPEATS times (default 3). From S3 means all of it: audio,
manifest, model, tables and the run's own files. Server and proxy have one core, the job and its Ray another. The rate
is that of the tracks after the first, by the times at which they were tagged: start-up and commit are not in it, what
happens between two shards is. MODEL is paper (default) or best; FOLDER as in bench_tagging.py.

The server and the wire are looked at alone first, as neither may be what limits. Prints medians and their ratio, writes
bench-run/s3.json.
"""

import contextlib
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench_tagging import OUT, ROOT, SONGS

from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.tables import delta

SERVERS, WORKER = (sorted(os.sched_getaffinity(0)) * 2)[:2]  # cores
STORE = Location("s3://bucket")
CONNECTIONS = 4  # of the look at the server


def start(core: int, *command: str, **how: Any) -> subprocess.Popen[str]:
    pin = functools.partial(os.sched_setaffinity, 0, {core})
    return subprocess.Popen([sys.executable, *command], text=True, preexec_fn=pin, **how)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The endpoint of moto's server, which the AWS variables name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start(SERVERS, str(ROOT / "bench" / "s3_server.py"), address.partition(":")[2], **quiet)
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int(address.partition(":")[2]))).close()
                break
            time.sleep(0.1)
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        STORE.filesystem.call_s3("create_bucket", Bucket=STORE.path)
        yield address
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def wire(upstream: str, seen: dict[str, int]) -> Iterator[str]:
    """The endpoint of a slow wire to `upstream`; `seen` is filled in when it ends."""
    process = start(SERVERS, str(ROOT / "bench" / "slow_proxy.py"), upstream, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        seen.update(json.loads(process.communicate()[0]))


def store(folder: Path, at: Location) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        files = [path for path in folder.rglob("*") if path.is_file()]
        [*pool.map(lambda path: (at / str(path.relative_to(folder))).write_bytes(path.read_bytes()), files)]


def served(uris: list[str], connections: int) -> dict[str, float]:
    """What a loop over these objects gets of the endpoint: plain GETs over connections that stay open."""
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(max_pool_connections=connections))

    def get(uri: str) -> int:
        bucket, _, key = Location(uri).path.partition("/")
        return len(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(connections) as pool:
        [*pool.map(get, uris[:connections])]  # opens the connections
        begun = time.monotonic()
        n_bytes = sum(pool.map(get, uris))
        wall_s = time.monotonic() - begun
    return {"tracks_per_s": len(uris) / wall_s, "mb_per_s": n_bytes / 1e6 / wall_s}


def tag(manifest: Location, model: Location, out: Location, n: int) -> dict[str, Any]:
    """The job with one worker: its rate after the first track, and what its record says."""
    job = (str(ROOT / "jobs" / "tag_catalogue.py"), "--manifest", manifest.uri, "--model", model.uri, "--out", out.uri)
    begun = time.monotonic()
    process = start(WORKER, *job, "--num-workers", "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, complaint = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(job)} failed:\n{complaint[-4000:]}")
    wall_s = time.monotonic() - begun
    tags = delta.open_table(out, "tags")
    assert tags is not None
    times = sorted(
        moment.timestamp() for moment in tags.to_pyarrow_table(columns=["tagged_at"])["tagged_at"].to_pylist()
    )
    assert len(times) == n
    (record,) = [json.loads(file.read_bytes()) for file in (out / "runs").files(".json")]
    return {
        "tracks_per_s": (n - 1) / (times[-1] - times[0]),
        "wall_s": wall_s,
        "cpu_s_per_track": record["cpu_s_per_track"],
        "seconds_by_stage": record["seconds_by_stage"],
    }


def main(n: int = 70, repeats: int = 3, model: str = "paper", folder: Path = SONGS) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"folder": [], "s3": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, server() as address:
        place = Path(temporary)
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), str(n)]
        subprocess.run(inputs, check=True)
        tracks = STORE / "tracks"
        store(place / f"tracks-{n}", tracks)
        store(place / model, STORE / model)
        build_manifest(tracks, None, STORE / "tracks.parquet")
        uris = [f"{STORE}/tracks/{path}" for path, _ in tracks.walk()]
        alone = {"server": served(uris, CONNECTIONS)}
        direct = os.environ["AWS_ENDPOINT_URL"]
        with wire(address, {}) as endpoint:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            alone["wire, one connection"] = served(uris[:20], 1)
        for name, row in alone.items():
            print(f"{name}: {row['tracks_per_s']:.1f} tracks/s, {row['mb_per_s']:.1f} MB/s")
        for repeat in range(repeats):
            for name in runs:
                os.environ["AWS_ENDPOINT_URL"] = direct
                at, seen = (STORE if name == "s3" else Location(temporary)), dict[str, int]()
                manifest = STORE / "tracks.parquet" if name == "s3" else at / f"tracks-{n}.parquet"
                with wire(address, seen) as endpoint:
                    os.environ["AWS_ENDPOINT_URL"] = endpoint
                    one = tag(manifest, at / model, at / f"out-{repeat}", n)
                runs[name].append(one | {"through_the_wire": seen})
                print(f"{repeat + 1}/{repeats} {name:6} {one} {seen}", flush=True)
    rates = {name: statistics.median(one["tracks_per_s"] for one in some) for name, some in runs.items()}
    print(f"\nfolder {rates['folder']:.2f}, S3 {rates['s3']:.2f} tracks a second: {rates['s3'] / rates['folder']:.1%}")
    OUT.mkdir(exist_ok=True)
    found = {"files": n, "model": model, "alone": alone, "runs": runs, "ratio": rates["s3"] / rates["folder"]}
    (OUT / "s3.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *sys.argv[3:4], *(Path(value) for value in sys.argv[4:5]))
