"""Tags of one resource, looked up by its id: moto goes through those of the whole account with a
pattern, for each resource of every answer, which a thousand instances make minutes of."""

from typing import Any

from ..patching import override


def install() -> None:
    """Replaces moto's search."""
    from moto.ec2.models.core import TaggedEC2Resource
    from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE as KINDS
    from moto.ec2.utils import get_prefix

    @override(TaggedEC2Resource, "get_tags")
    def get_tags(_original: Any, self: Any) -> list[dict[str, str]]:
        if not self.id:
            return []
        tags = self.ec2_backend.tags.get(self.id, {})
        kind = KINDS.get(get_prefix(self.id), "")
        return [
            {"resource_id": self.id, "key": key, "value": value, "resource_type": kind}
            for key, value in tags.items()
        ]
