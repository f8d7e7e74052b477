"""JSON schemas of Kubernetes objects that refuse unknown keys."""

from typing import Any


def closed(schema: Any) -> Any:
    """The schema with unknown keys refused, as `kubectl apply` does: by itself it lets misspelt keys pass."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {key: closed(part) for key, part in schema.items()} | more
