"""Tagging from a slow S3 against tagging from a folder: python bench/bench_s3.py [N [REPEATS [MODEL [FOLDER]]]]

One worker tags the same N files (default 70) from a folder and from an S3 endpoint with 100 ms of latency and 20 MB/s
a connection (slow_proxy.py before moto's server), in turn, REPEATS times (default 3); and once more from S3 with a
manifest without sizes, so that each file is one GET. From S3 means everything: audio, manifest, model, tables, and the
run's own files. Server and proxy have one core, the job and its Ray another.

The rate is that of the tracks after the first, by the times at which they were tagged. So start-up and commit are left
out, and the time between two shards is included. MODEL is paper (default), best or spread, which reads 8 segments of a
track. FOLDER is as in bench_tagging.py; it may hold wav and flac files instead. Takes some 5 minutes with the defaults
(estimated).

First measures server and proxy alone, because neither may be the limit. Prints medians and their ratio, and writes
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

import pyarrow as pa
import pyarrow.parquet as pq
from bench_tagging import OUT, ROOT, SONGS

from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.tables import delta

SERVER_CORE, WORKER_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
STORE = Location("s3://bucket")
CONNECTIONS = 4  # to measure the server alone
WHOLE = "s3, one GET each"
SEGMENTS = {"spread": ("--segments", "8")}


def start(core: int, *command: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program on one core; `options` are Popen's."""
    pin = functools.partial(os.sched_setaffinity, 0, {core})
    return subprocess.Popen([sys.executable, *command], text=True, preexec_fn=pin, **options)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start moto's server and set the AWS variables to it; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start(SERVER_CORE, str(ROOT / "bench" / "s3_server.py"), address.partition(":")[2], **quiet)
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
def slow_proxy(upstream: str, counts: dict[str, int]) -> Iterator[str]:
    """Start a slow proxy to `upstream`; gives its endpoint. `counts` is filled in when it ends."""
    process = start(SERVER_CORE, str(ROOT / "bench" / "slow_proxy.py"), upstream, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        counts.update(json.loads(process.communicate()[0]))


def upload(folder: Path, target: Location) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        files = [path for path in folder.rglob("*") if path.is_file()]
        [*pool.map(lambda path: (target / str(path.relative_to(folder))).write_bytes(path.read_bytes()), files)]


def download_rate(uris: list[str], connections: int) -> dict[str, float]:
    """Tracks and megabytes a second of plain GETs over connections that stay open."""
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(max_pool_connections=connections))

    def get(uri: str) -> int:
        bucket, _, key = Location(uri).path.partition("/")
        return len(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(connections) as pool:
        [*pool.map(get, uris[:connections])]  # opens the connections
        start_s = time.monotonic()
        n_bytes = sum(pool.map(get, uris))
        wall_s = time.monotonic() - start_s
    return {"tracks_per_s": len(uris) / wall_s, "mb_per_s": n_bytes / 1e6 / wall_s}


def tag(manifest: Location, model: Location, out: Location, n: int) -> dict[str, Any]:
    """Run the job with one worker; its rate after the first track, and figures of its run record."""
    job = (str(ROOT / "jobs" / "tag_catalogue.py"), "--manifest", manifest.uri, "--model", model.uri, "--out", out.uri)
    start_s = time.monotonic()
    process = start(
        WORKER_CORE,
        *job,
        "--num-workers",
        "1",
        *SEGMENTS.get(model.name, ()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, stderr = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(job)} failed:\n{stderr[-4000:]}")
    wall_s = time.monotonic() - start_s
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
    runs: dict[str, list[dict[str, Any]]] = {"folder": [], "s3": [], WHOLE: []}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, server() as address:
        place = Path(temporary)
        inputs = [sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), temporary, str(folder), str(n)]
        subprocess.run(inputs, check=True)
        tracks = STORE / "tracks"
        upload(place / f"tracks-{n}", tracks)
        upload(place / model, STORE / model)
        build_manifest(tracks, None, STORE / "tracks.parquet")
        sizes = pq.read_table(pa.BufferReader((STORE / "tracks.parquet").read_bytes()))
        pq.write_table(sizes.drop_columns("size_bytes"), place / "whole.parquet")
        (STORE / "whole.parquet").write_bytes((place / "whole.parquet").read_bytes())
        uris = [f"{STORE}/tracks/{path}" for path, _ in tracks.walk()]
        alone = {"server": download_rate(uris, CONNECTIONS)}
        direct = os.environ["AWS_ENDPOINT_URL"]
        with slow_proxy(address, {}) as endpoint:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            alone["proxy, one connection"] = download_rate(uris[:20], 1)
        for name, row in alone.items():
            print(f"{name}: {row['tracks_per_s']:.1f} tracks/s, {row['mb_per_s']:.1f} MB/s")
        for repeat in range(repeats):
            for name in runs:
                os.environ["AWS_ENDPOINT_URL"] = direct
                root, counts = Location(temporary) if name == "folder" else STORE, dict[str, int]()
                manifest = (
                    root / {"folder": f"tracks-{n}.parquet", "s3": "tracks.parquet", WHOLE: "whole.parquet"}[name]
                )
                with slow_proxy(address, counts) as endpoint:
                    os.environ["AWS_ENDPOINT_URL"] = endpoint
                    figures = tag(manifest, root / model, root / f"out-{repeat}-{len(name)}", n)
                runs[name].append(figures | {"through_the_proxy": counts})
                print(f"{repeat + 1}/{repeats} {name:6} {figures} {counts}", flush=True)
    rates = {name: statistics.median(run["tracks_per_s"] for run in rows) for name, rows in runs.items()}
    for name in ("s3", WHOLE):
        counts = [run["through_the_proxy"] for run in runs[name]]
        gets, mb = (statistics.median(count[what] for count in counts) / n for what in ("GET", "bytes"))
        print(f"{name}: {rates[name]:.2f} tracks a second, {gets:.1f} GETs and {mb / 1e6:.1f} MB a track")
    print(f"\nfolder {rates['folder']:.2f}, S3 {rates['s3']:.2f} tracks a second: {rates['s3'] / rates['folder']:.1%}")
    OUT.mkdir(exist_ok=True)
    results = {"files": n, "model": model, "alone": alone, "runs": runs, "ratio": rates["s3"] / rates["folder"]}
    (OUT / "s3.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]), *sys.argv[3:4], *(Path(value) for value in sys.argv[4:5]))
