"""A real Prometheus that scrapes a test's targets and evaluates rules, and what the files of deploy/monitoring hold."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"


def required(program: str) -> str:
    """The path of a program of Debian's package prometheus. Where it is absent, the test is skipped; not in CI."""
    found = shutil.which(program)
    if found is None and "CI" not in os.environ:
        pytest.skip(f"no {program}: apt-get install prometheus")
    assert found is not None, f"CI installs {program}"
    return found


def rules() -> dict[str, Any]:
    """The rule file of Prometheus that is in the PrometheusRule."""
    return dict(yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())["spec"])


def alerts() -> list[dict[str, Any]]:
    """The alerts of that file."""
    return list(rules()["groups"][0]["rules"])


def dashboard_queries() -> dict[str, str]:
    """Title of a panel and letter of its query -> the query, for all runs."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$run", ".*")
        for panel in panels
        for target in panel.get("targets", [])
    }


class Prometheus:
    """One that answers at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its API."""
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as response:
            return json.load(response)["data"]

    def newest(self, query: str, since_s: float) -> dict[str, float]:
        """The labels of each series that a query has had since then (seconds since 1970), and its newest number."""
        found = self.get("query_range", query=query, start=since_s, end=time.time(), step=1)["result"]
        newest = {}
        for series in found:
            labels = ",".join(f"{key}={value}" for key, value in sorted(series["metric"].items()) if key[0] != "_")
            newest[labels] = float(series["values"][-1][1])
        return newest

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"}

    def reload(self) -> None:
        """Read the configuration and the rules again."""
        urllib.request.urlopen(urllib.request.Request(f"{self._url}/-/reload", method="POST")).close()


@contextlib.contextmanager
def prometheus(folder: Path, port: int, targets: Sequence[str], rules: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `targets` (host:port) every 2 s. `folder`/rules.yaml may be changed."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [{"job_name": "mtl", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [required("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
         f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
         "--web.enable-lifecycle", "--log.level=error"],
    )  # fmt: skip
    try:
        server, deadline = Prometheus(port), time.monotonic() + 30
        while True:
            try:
                server.get("alerts")
                break
            except OSError:  # it starts
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()
