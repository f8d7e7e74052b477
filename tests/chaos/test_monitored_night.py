"""A real Prometheus watches nights on a real cluster: every query has a value, and each alert fires when it should.

`TABLE=FILE PICTURE=FILE python -m pytest -m slow tests/chaos/test_monitored_night.py -s` writes the table and draws the
picture of docs/monitoring.md.
"""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders.dashboard_picture import draw_dashboard
from builders.models import save, untrained_artifact
from builders.prometheus import Prometheus, alerts, dashboard_queries, prometheus, rules
from clusters import CLUSTER, free_port, head, tagging_processes
from nightly import count_done_shards, wait_for, write_track

from mtl_core.audio.front_end import FrontEnd
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location

N = 320  # tracks of a night
#: How much shorter the waits of the rules are than for a night of hours: for good nights, which may run on a busy
#: machine, and for the bad one. The 8 hours of the deadline stay.
GOOD, BAD = 10, 30
WAITS_S = {"5m": 300, "10m": 600, "15m": 900, "30m": 1800, "1h": 3600}


def shortened(text: str, factor: int = GOOD) -> str:
    for duration, seconds in WAITS_S.items():
        text = text.replace(f"[{duration}]", f"[{seconds // factor}s]")
        text = text.replace(f"for: {duration}", f"for: {seconds // factor}s")
    return text.replace("$__rate_interval", "10s")


def short_rules(factor: int) -> dict[str, Any]:
    return dict(yaml.safe_load(shortened(yaml.safe_dump(rules()), factor)))


class Records(http.server.BaseHTTPRequestHandler):
    """Serves the newest record of a run as node-exporter's textfile collector would."""

    out: Path

    def do_GET(self) -> None:
        files = sorted(self.out.glob("runs/*.prom"))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # a busy machine: the scrape has given up
            self.wfile.write(files[-1].read_bytes() if files else b"")

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def records_port(tmp_path: Path) -> Iterator[int]:
    handler = type("Handler", (Records,), {"out": tmp_path / "out"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def add_night(bucket: Location, night: int, n_bad: int) -> None:
    """Add the tracks of a night to the catalogue, of which the first are bad, and list it."""
    for number in range(N):
        file = bucket / "catalogue" / f"{night}-{number:03}.wav"
        if number < n_bad:
            file.write_bytes(b"no music %d" % number)
        else:
            write_track(file, number)
    build_manifest(bucket / "catalogue", None, bucket / "manifest.parquet")


def start_night(bucket: Location, out: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    flags = {"manifest": bucket / "manifest.parquet", "model": bucket / "model", "out": out, "num-workers": 2}
    return subprocess.Popen(
        [sys.executable, "-m", "mtl_core", "tag_catalogue", "--max-failed-share", "1",
         *(text for name, value in flags.items() for text in (f"--{name}", str(value)))],
        env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ends(job: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for the end of a night, and return its output."""
    stdout, stderr = job.communicate(timeout=300)
    assert job.returncode == status, stderr
    return stdout + stderr


def rewrite_records(out: Path) -> None:
    """The nights before knew all artists."""
    for file in (out / "runs").glob("2*.json"):
        record = json.loads(file.read_text())
        record["night"]["shares"] |= {"artist is null": 0, "artist is a": record["tagged"]}
        file.write_text(json.dumps(record))


def change_rules(folder: Path, server: Prometheus) -> None:
    """The rules of the bad night: its deadline has passed when it begins."""
    text = yaml.safe_dump(short_rules(BAD))
    assert "8 * 3600" in text
    (folder / "rules.yaml").write_text(text.replace("8 * 3600", "1"))
    server.reload()


def newest_record(out: Path) -> dict[str, Any]:
    return dict(json.loads(sorted((out / "runs").glob("2*.json"))[-1].read_text()))


def require_counts_of_record(server: Prometheus, record: dict[str, Any], bucket: Location) -> None:
    """What Prometheus has of a driver that was not killed is what the record says, and what the store holds."""

    def total(name: str) -> float:
        query = f'sum(ray_mtl_{name}_total{{run="{record["run_id"]}"}})'
        return float(server.get("query", query=query)["result"][0]["value"][1])

    assert (total("tracks_tagged"), total("tracks_failed")) == (record["tagged"], record["failed"]) == (N - 2, 2)
    n_stored = sum(entry["size"] for _, entry in (bucket / "catalogue").walk())
    n_nights = record["already_done"] // N + 1
    assert total("fetched_bytes") == record["fetched_bytes"] == pytest.approx(n_stored / n_nights, rel=1e-3)
    assert total("stage_seconds") == pytest.approx(sum(record["seconds_by_stage"].values()), abs=0.1)


def require_values(server: Prometheus, since_s: float, run_id: str) -> None:
    """Each query of the dashboard and each side of a rule has had a value for the run; they are written as a table."""
    comparison = re.compile(r"\s(?:==|>=|>|<) [\d.]+(?: \* \d+)?")
    queries = dashboard_queries() | {alert["alert"]: comparison.sub("", alert["expr"]) for alert in alerts()}
    lines, without = ["| panel or alert | query | values |", "| --- | --- | --- |"], []
    for name, query in queries.items():
        values = {
            re.sub(r",?(run|SessionName|dataset|instance)=[^,]*", "", labels).strip(","): value
            for labels, value in server.newest(shortened(query), since_s).items()
            if "run=" not in labels or run_id in labels
        }
        without += [] if values else [name]
        text = " ".join(query.replace('{run=~".*"}', "").replace(', run=~".*"', "").replace("|", "\\|").split())
        found = ", ".join(f"{labels} {value:.6g}".strip() for labels, value in values.items())
        lines.append(f"| {name} | `{text}` | {found} |")
    if "PICTURE" in os.environ:
        draw_dashboard(server, since_s - 60, Path(os.environ["PICTURE"]), shortened)
    if "TABLE" in os.environ:
        Path(os.environ["TABLE"]).write_text("\n".join(lines) + "\n")
    assert without == []


@pytest.mark.slow
def test_every_query_has_a_value_and_each_alert_fires_when_it_should(
    tmp_path: Path, bucket: str, records_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, out = Location(bucket), tmp_path / "out"
    front_end = FrontEnd(segments_per_excerpt=1)
    names_nobody = Aggregation(threshold={"artist": 2.0})  # no probability is as high
    save(untrained_artifact(front_end=front_end, aggregation=names_nobody), at / "model")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    monkeypatch.setenv(CLUSTER, tmp_path.name)
    metrics_port = free_port()
    targets = [f"127.0.0.1:{metrics_port}", f"127.0.0.1:{records_port}"]
    with (
        head(2, f"--metrics-export-port={metrics_port}") as env,
        prometheus(tmp_path, free_port(), targets, short_rules(GOOD)) as server,
    ):
        for night in range(2):
            add_night(at, night, n_bad=2)
            since_s = time.time()
            ends(start_night(at, out, env))
            time.sleep(5)  # what the driver left is scraped
            require_counts_of_record(server, newest_record(out), at)
        assert server.get("query", query='count_over_time(ALERTS{alertstate="firing"}[10m])')["result"] == []
        require_values(server, since_s, newest_record(out)["run_id"])

        rewrite_records(out)
        add_night(at, 2, n_bad=60)
        change_rules(tmp_path, server)
        since_s = time.time()
        job = start_night(at, out, env)
        wait_for(lambda: count_done_shards(out) >= 1, timeout_s=120)
        workers = tagging_processes(tmp_path.name)
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: {"MtlNightNoProgress", "MtlNightLate"} <= server.firing(), timeout_s=150)
        assert "busy: " in ends(start_night(at, out, env), status=4)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        ends(job)
        seen: set[str] = set()
        names = {alert["alert"] for alert in alerts()} - {"MtlNightNoProgress", "MtlNightLate"}
        wait_for(lambda: names <= seen or bool(seen.update(server.firing())), timeout_s=150)
        assert newest_record(out)["lease_conflicts"] == 1 and not list((out / "runs").glob("_conflict-*"))
        print("fired:", sorted(server.newest('ALERTS{alertstate="firing"}', since_s)))
