"""Resources that moto does not know: with an id, tags and filters like its own."""

import secrets
from typing import Any

KINDS = {"pg": "placement-group", "cr": "capacity-reservation"}


def install() -> None:
    """Teaches moto the ids of what it does not know."""
    from moto.ec2 import utils

    for prefix, kind in KINDS.items():
        utils.EC2_RESOURCE_TO_PREFIX.setdefault(kind, prefix)
        utils.EC2_PREFIX_TO_RESOURCE.setdefault(prefix, kind)


def resource(backend: Any, prefix: str) -> Any:
    """A new resource of moto's tagged kind."""
    from moto.ec2.models.core import TaggedEC2Resource

    made = TaggedEC2Resource()
    made.id = f"{prefix}-{secrets.token_hex(8)}{secrets.token_hex(1)[:1]}"
    made.ec2_backend = backend
    return made


def tags_of(resource: Any) -> list[dict[str, str]]:
    """The wire form of a resource's tags."""
    return [{"Key": tag["key"], "Value": tag["value"]} for tag in resource.get_tags()]
