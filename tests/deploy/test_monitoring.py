"""The files of deploy/monitoring: valid for what reads them, and each alert fires when it should and only then."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from builders.prometheus import MONITORING, alerts, dashboard_queries, required, rules
from builders.schemas import closed

from mtl_core.pipelines.night import prometheus_text
from mtl_core.pipelines.night.metrics import COUNTERS, GAUGES

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "kuberay-crds"
NAMES = [
    "MtlNightFailureShareHigh",
    "MtlNightNoProgress",
    "MtlNightLate",
    "MtlNightUnknownShareJumped",
    "MtlNightDrift",
    "MtlNightLeaseContention",
]
LIVE = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the checkout")
    return SHARED / name


def test_each_alert_fires_in_its_night_and_none_in_a_good_one(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    ended = subprocess.run(
        [required("promtool"), "test", "rules", "alerts.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    nights = yaml.safe_load((tmp_path / "alerts.yaml").read_text())["tests"]
    cases = [case for night in nights for case in night["alert_rule_test"]]
    for name in NAMES:
        assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name} == {True, False}


def test_the_alerts_have_what_a_person_who_is_paged_needs() -> None:
    assert [alert["alert"] for alert in alerts()] == NAMES
    for alert in alerts():
        assert alert["labels"].keys() == {"severity"} and alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["summary"].count(". ") == 0, "one sentence"
        assert alert["annotations"]["runbook_url"].endswith(f"/runbook/#{alert['alert'].lower()}")


def test_every_query_is_valid_and_of_metrics_that_exist(tmp_path: Path) -> None:
    queries = dashboard_queries() | {alert["alert"]: alert["expr"] for alert in alerts()}
    as_rules = [
        {"record": "x", "labels": {"n": str(i)}, "expr": query.replace("$__rate_interval", "1m")}
        for i, query in enumerate(queries.values())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": as_rules}]}))
    checked = subprocess.run([required("promtool"), "check", "rules", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    of_records = set(re.findall(r'"(mtl_run_\w+)"', Path(prometheus_text.__file__).read_text()))
    for name, query in queries.items():
        used = set(re.findall(r"\b(?:ray_)?mtl_\w+", query.replace("(tagged|failed)", "tagged")))
        assert used <= LIVE | of_records, name


def test_the_page_explains_each_metric_and_alert() -> None:
    page = (REPOSITORY / "docs" / "monitoring.md").read_text()
    assert [name for name in (*LIVE, *NAMES) if f"`{name}`" not in page] == []


def test_the_dashboard_fits_the_schema_of_grafana() -> None:
    schema = json.loads(shared("grafana-dashboard-schema/dashboard.jsonschema.json").read_text())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(dashboard)] == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("kind", ["PrometheusRule", "PodMonitor"])
def test_a_manifest_fits_the_schema_of_the_operator_and_a_misspelt_key_does_not(kind: str) -> None:
    file = shared(f"prometheus-operator-v0.93.0/monitoring.coreos.com_{kind.lower()}s.yaml")
    resource = yaml.load(file.read_text(), yaml.CSafeLoader)
    schema = closed(resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    manifest = {"PrometheusRule": "prometheus-rule", "PodMonitor": "pod-monitor"}[kind]
    objects = yaml.safe_load((MONITORING / f"{manifest}.yaml").read_text())
    valid = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in valid.iter_errors(objects)] == []
    misspelt = json.dumps(objects).replace('"expr"', '"exprs"').replace('"port"', '"prot"')
    assert not valid.is_valid(json.loads(misspelt))
