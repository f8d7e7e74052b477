"""cluster.yaml is a cluster that Ray's own launcher accepts."""

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
