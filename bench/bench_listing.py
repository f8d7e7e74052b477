"""build_manifest of ten million files: python bench/bench_listing.py FOLDER [CASE …] [--keys N]

Cases: the layouts of `listing_server`, listed from a stub of S3 that takes 150 ms a page; `parquet` and `csv`, an
inventory on the disk; `labelled`, the Parquet inventory joined with labels of all files in random order, and
`folders-labelled`, the same with a listing. Each runs as the command that a user gives. FOLDER keeps what is made once
(12 GB for ten million). The manifests of `folders`, `parquet` and `csv` must be the same, byte for byte.
"""

import argparse
import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import listing_server
import process_tree
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from listing_server import LAYOUTS, PREFIX

CASES = (*LAYOUTS, "parquet", "csv", "labelled", "folders-labelled")
KEYS_PER_FILE = 1_000_000
_PRIME = 7_368_787  # n -> n * _PRIME modulo the number of keys is an order without order


def objects(n_keys: int) -> Iterator[pa.Table]:
    """The objects of the layout "folders" as an inventory has them."""
    for first in range(0, n_keys, KEYS_PER_FILE):
        keys = [listing_server.folder_key(n) for n in range(first, min(first + KEYS_PER_FILE, n_keys))]
        etags, sizes = zip(*map(listing_server.content, keys), strict=True)
        yield pa.table({"bucket": ["bucket"] * len(keys), "key": keys, "size": sizes, "e_tag": etags})


def write_inventory(folder: Path, n_keys: int, file_format: str) -> Path:
    """Returns the path of `manifest.json`."""
    manifest = folder / f"{file_format}-{n_keys}" / "2026-01-02T01-00Z" / "manifest.json"
    if manifest.exists():
        return manifest
    data = manifest.parents[1] / "data"
    data.mkdir(parents=True, exist_ok=True)
    names = []
    for n, table in enumerate(objects(n_keys)):
        names.append(f"{n}.{'csv.gz' if file_format == 'csv' else 'parquet'}")
        if file_format == "parquet":
            pq.write_table(table, data / names[-1])
            continue
        keys = pa.array([urllib.parse.quote_plus(key, safe="/") for key in table["key"].to_pylist()])
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="all_valid")
        with gzip.open(data / names[-1], "wb", 1) as file:
            pyarrow.csv.write_csv(table.set_column(1, "key", keys), file, options)
    content = {
        "sourceBucket": "bucket",
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "creationTimestamp": "1767315600000",
        "fileFormat": {"csv": "CSV", "parquet": "Parquet"}[file_format],
        "fileSchema": "Bucket, Key, Size, ETag",
        "files": [{"key": f"inventories/bucket/all/data/{name}"} for name in names],
    }
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_text(json.dumps(content))
    return manifest


def write_labels(folder: Path, n_keys: int) -> Path:
    """Labels of all keys of the layout "folders"."""
    path = folder / f"labels-{n_keys}.csv"
    if not path.exists():
        with path.open("w") as file:
            file.write("path,artist,language,album,label\n")
            for number in range(n_keys):
                n = number * _PRIME % n_keys
                key = listing_server.folder_key(n).removeprefix(PREFIX)
                file.write(
                    f"{key},Artist {n // 100},{'en es fr de hi'.split()[n % 5]},Album {n // 10},Label {n % 997}\n"
                )
    return path


class Stub:
    """The stub of S3 in a process of its own, which is no child of this one: its CPU seconds do not count."""

    def __init__(self, folder: Path, layout: str, n_keys: int) -> None:
        listing_server.write_pages(layout, n_keys, folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = str(Path(__file__).with_name("listing_server.py"))
        command = [sys.executable, program, str(port), str(folder), layout, str(n_keys)]
        start = ["sh", "-c", '"$0" "$@" >&2 & echo $!', *command]
        self._pid = int(subprocess.run(start, stdout=subprocess.PIPE, check=True).stdout)
        self.url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit("the stub of S3 does not start")

    def count_requests(self) -> int:
        request = urllib.request.Request(self.url, method="DELETE")
        return int(urllib.request.urlopen(request).read())

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGKILL)


def measure(case: str, folder: Path, n_keys: int) -> str:
    """Run a case. Returns the SHA-256 of its manifest."""
    out = folder / f"{case}.parquet"
    flags = ["--catalogue", f"s3://bucket/{PREFIX}", "--out", str(out)]
    if case.endswith("labelled"):
        flags += ["--labels", str(write_labels(folder, n_keys))]
    stub = None
    environment = {"AWS_ACCESS_KEY_ID": "stub", "AWS_SECRET_ACCESS_KEY": "stub", "AWS_DEFAULT_REGION": "us-east-1"}
    layout = case.removesuffix("-labelled")
    if layout in LAYOUTS:
        stub = Stub(folder, layout, n_keys)
        environment["AWS_ENDPOINT_URL"] = stub.url
    else:
        flags += ["--inventory", str(write_inventory(folder, n_keys, "csv" if case == "csv" else "parquet"))]
    try:
        usage = process_tree.run([sys.executable, "-m", "mtl_core", "build_manifest", *flags], **environment)
        n_requests = 0 if stub is None else stub.count_requests()
    finally:
        if stub is not None:
            stub.stop()
    assert f"{n_keys:,} tracks" in usage.stdout, usage.stdout
    figures = f"{usage.wall_s:.0f} s, {usage.cpu_s:.0f} CPU s, {usage.driver_mib:,.0f} MiB, {n_requests:,} requests"
    print(f"{case}: {figures}", flush=True)
    with out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    out.unlink()
    return digest


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", default=CASES, help=", ".join(CASES))
    parser.add_argument("--keys", type=int, default=10_000_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    digests = {case: measure(case, options.folder, options.keys) for case in options.cases}
    assert len({digests[case] for case in ("folders", "parquet", "csv") if case in digests}) <= 1, digests
    assert len({digests[case] for case in ("labelled", "folders-labelled") if case in digests}) <= 1, digests
