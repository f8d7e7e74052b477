"""The manifests of deploy/kuberay fit the schemas of KubeRay and Kubernetes, and hold what no schema asks for."""

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tyro
import yaml
from builders.schemas import closed

from mtl_core.jobs import nightly

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "deploy" / "kuberay"
SCHEMAS = REPOSITORY.parent / "shared" / "kuberay-crds" / "kuberay-v1.7.0"
SUFFIXES = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}


def read(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())}


def quantity(text: str) -> float:
    """An amount of Kubernetes, such as 16Gi, as a number."""
    number = text.rstrip("Mmi" if text.endswith(("m", "Mi")) else "Gi")
    return float(number) * SUFFIXES[text.removeprefix(number)]


RAY_JOB, RAY_CRON_JOB = read("rayjob")["RayJob"], read("raycronjob")["RayCronJob"]
CRON_JOB = read("cronjob")["CronJob"]
SPEC = RAY_JOB["spec"]
CLUSTER = SPEC["rayClusterSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
NODES = {"head": CLUSTER["headGroupSpec"]} | GROUPS
CONTAINERS = {name: node["template"]["spec"]["containers"][0] for name, node in NODES.items()}
OPTIONS = tyro.cli(nightly.Options, args=shlex.split(SPEC["entrypoint"])[4:])


def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Of a kind of KubeRay 1.7."""
    if not SCHEMAS.is_dir():
        pytest.skip("the schemas of KubeRay's custom resources are not beside the checkout")
    schema = closed(json.loads((SCHEMAS / f"{kind.lower()}s-v1.schema.json").read_text()))
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("manifest", [RAY_JOB, RAY_CRON_JOB], ids=["RayJob", "RayCronJob"])
def test_a_manifest_fits_the_schema_and_a_misspelt_key_does_not(manifest: dict[str, Any]) -> None:
    valid = validator(manifest["kind"])
    assert [error.message for error in valid.iter_errors(manifest)] == []
    misspelt = json.loads(json.dumps(manifest).replace("backoffLimit", "backofLimit"))
    assert not valid.is_valid(misspelt)


def test_both_schedules_run_the_same_night() -> None:
    assert RAY_CRON_JOB["spec"]["jobTemplate"] == SPEC
    assert {RAY_CRON_JOB["spec"][key] for key in ("schedule", "timeZone")} == {"0 1 * * *", "Etc/UTC"}
    assert all(CRON_JOB["spec"][key] == RAY_CRON_JOB["spec"][key] for key in ("schedule", "timeZone"))


def test_what_only_the_operator_checks() -> None:
    assert SPEC["submissionMode"] in ("K8sJobMode", "HTTPMode")
    assert SPEC["shutdownAfterJobFinishes"] is True and SPEC["ttlSecondsAfterFinished"] >= 60
    assert SPEC["activeDeadlineSeconds"] > SPEC["preRunningDeadlineSeconds"] > 0
    assert len(RAY_JOB["metadata"]["generateName"]) + 5 <= 47 and len(RAY_CRON_JOB["metadata"]["name"]) <= 36
    assert "TZ" not in RAY_CRON_JOB["spec"]["schedule"] and "concurrencyPolicy" not in RAY_CRON_JOB["spec"]
    assert "clusterSelector" not in SPEC and "enableK8sTokenAuth" not in CLUSTER["authOptions"]


def test_only_the_entry_point_retries() -> None:
    assert shlex.split(SPEC["entrypoint"])[:4] == ["python", "-m", "mtl_core", "nightly"]
    assert OPTIONS.retries == 2
    assert SPEC["backoffLimit"] == 0 and CRON_JOB["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_two_nights_do_not_overlap() -> None:
    spec = CRON_JOB["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    day_s, pod_s = 86_400, spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert SPEC["activeDeadlineSeconds"] < pod_s < day_s, "the pod must outlive its night for `Forbid` to hold"


def test_every_node_has_the_ray_of_the_lock() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    base = (REPOSITORY / "deploy" / "Containerfile").read_text()
    assert f"\nray=={CLUSTER['rayVersion']}\n" in lock
    assert f"ARG BASE=rayproject/ray:{CLUSTER['rayVersion']}-py311-cpu" in base
    assert len({container["image"].removesuffix("-gpu") for container in CONTAINERS.values()}) == 1


def test_no_container_runs_as_root_or_has_privileges() -> None:
    pods = [node["template"]["spec"] for node in NODES.values()]
    for pod in [*pods, CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]]:
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_workers_fit_on_their_nodes_and_none_on_the_head() -> None:
    spot = GROUPS["spot"]
    cpus, offered_bytes = int(spot["rayStartParams"]["num-cpus"]), int(spot["rayStartParams"]["memory"])
    node_bytes = quantity(CONTAINERS["spot"]["resources"]["limits"]["memory"])
    assert 0.69 < offered_bytes / node_bytes <= 0.7, "the rest is for Ray, its object store and large files"
    assert cpus == quantity(CONTAINERS["spot"]["resources"]["limits"]["cpu"])
    assert cpus * OPTIONS.worker_memory_mib * 2**20 <= offered_bytes
    assert OPTIONS.num_workers is not None and OPTIONS.num_workers <= cpus * spot["maxReplicas"]
    assert [NODES[name]["rayStartParams"]["num-cpus"] for name in ("head", "gpu")] == ["0", "0"]


def test_the_groups_start_on_spot_and_gpu_nodes_on_demand() -> None:
    for group in GROUPS.values():
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    selectors = {name: node["template"]["spec"]["nodeSelector"].popitem()[1] for name, node in NODES.items()}
    assert selectors == {"head": "ON_DEMAND", "spot": "SPOT", "gpu": "ON_DEMAND"}
    assert CONTAINERS["gpu"]["resources"]["limits"]["nvidia.com/gpu"] == GROUPS["gpu"]["rayStartParams"]["num-gpus"]


def test_a_node_that_ends_is_not_killed_while_it_drains() -> None:
    for name, node in NODES.items():
        environment = {one["name"]: one["value"] for one in CONTAINERS[name]["env"]}
        grace_s = node["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        assert int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < grace_s


def test_the_names_that_the_objects_call_each_other_by() -> None:
    pod = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    kinds = read("cronjob")
    assert pod["serviceAccountName"] == kinds["ServiceAccount"]["metadata"]["name"]
    assert kinds["RoleBinding"]["subjects"][0]["name"] == pod["serviceAccountName"]
    assert kinds["RoleBinding"]["roleRef"]["name"] == kinds["Role"]["metadata"]["name"]
    night = read("access")["ServiceAccount"]["metadata"]["name"]
    assert {node["template"]["spec"]["serviceAccountName"] for node in NODES.values()} == {night}
    (generated,) = read("kustomization")["Kustomization"]["configMapGenerator"]
    assert generated == {"name": pod["volumes"][0]["configMap"]["name"], "files": ["rayjob.yaml"]}
    assert set(read("kustomization")["Kustomization"]["resources"]) == {"access.yaml", "cronjob.yaml"}


#: What the API server says of the RayJob, look after look -> the pod's exit status, and a text that it prints.
FAILED = "AppFailed: Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):"
ENDS = [
    (["[ ]", "[Initializing ]", "[Running RUNNING]", "[Complete SUCCEEDED]"], "", 0, "rayjob.ray.io/mtl-night-1"),
    (["[Running RUNNING]", "away", "[Failed FAILED]"], FAILED.format(3) + "\ndone [exit status 3]", 3, "status 3]"),
    (["[Failed FAILED]"], FAILED.format(137) + "\nfailed with exit code 4", 137, "failed"),
    (["[Failed RUNNING]"], "DeadlineExceeded: The RayJob has passed the activeDeadlineSeconds", 1, "DeadlineExceeded"),
    (["[Complete STOPPED]"], "", 143, "stopped"),
    (["[Running RUNNING]", ""], "", 1, "it was deleted"),
]


def run_script(
    tmp_path: Path, states: list[str], message: str, *, patch: str = "true"
) -> subprocess.CompletedProcess[str]:
    """Run the script of the manifest with a `kubectl` that answers from files."""
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    (tmp_path / "message").write_text(message)
    (tmp_path / "kubectl").write_text(f"""#!/bin/sh
cd {shlex.quote(str(tmp_path))}
echo "$*" >> calls
case "$*" in
  create*) echo rayjob.ray.io/mtl-night-1 ;;
  patch*) {patch} ;;
  *status.message*) cat message ;;
  *) line=$(head -n 1 states); sed -i 1d states; [ "$line" != away ] || exit 1; printf %s "$line" ;;
esac
""")
    (tmp_path / "kubectl").chmod(stat.S_IRWXU)
    container = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return subprocess.run(
        [*container["command"], *container["args"]],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POLL_S": "0", "JOB_NAME": "j", "JOB_UID": "u"},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_night_without_an_owner_is_watched_all_the_same(tmp_path: Path) -> None:
    ended = run_script(tmp_path, ["[Complete SUCCEEDED]"], "", patch="exit 1")
    assert ended.returncode == 0 and "has no owner" in ended.stdout


@pytest.mark.parametrize(("states", "message", "status", "printed"), ENDS, ids=[str(end[2:]) for end in ENDS])
def test_the_pod_of_the_cronjob_ends_as_the_driver_did(
    tmp_path: Path, states: list[str], message: str, status: int, printed: str
) -> None:
    ended = run_script(tmp_path, states, message)
    assert ended.returncode == status and printed in ended.stdout, ended.stdout + ended.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "create -f /night/rayjob.yaml -o name"
    owner = yaml.safe_load(calls[1].partition(" -p ")[2])["metadata"]["ownerReferences"]
    assert owner == [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}]
