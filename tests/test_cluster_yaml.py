"""cluster.yaml is a cluster that Ray's own launcher accepts, and its nodes run the versions that the tests run."""

import json
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml

REPOSITORY = Path(__file__).parents[1]


def test_cluster_yaml_fits_rays_schema() -> None:
    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    for local in config["file_mounts"].values():
        assert (REPOSITORY / local).is_file(), f"{local} is mounted on every node"
    (install,) = (command for command in config["setup_commands"] if "pip install" in command)
    assert config["file_mounts"] == {install.split()[-1]: "./requirements.lock"}


def test_nodes_run_the_versions_that_the_tests_run() -> None:
    runtime, development = (
        {line for line in (REPOSITORY / name).read_text().splitlines() if not line.startswith("#")}
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runtime < development
    names = {line.partition("==")[0] for line in runtime}
    assert {"ray", "torch", "openvino", "librosa"} <= names and not names & {"pytest", "moto", "mypy", "ruff"}
