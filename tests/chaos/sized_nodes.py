"""Nodes on this machine for Ray's autoscaler, whose type can name their memory, as the types of a cloud do."""

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class SizedNodes(FakeMultiNodeProvider):
    """Ray's nodes for tests, which refuse to start where their type names memory."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict[str, float], labels: Any
    ) -> Any:
        others = {name: amount for name, amount in resources.items() if name != "memory"}
        return super().create_node_with_resources_and_labels(node_config, tags, count, others, labels)
