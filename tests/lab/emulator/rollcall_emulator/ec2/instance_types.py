"""DescribeInstanceTypes: by name straight from the table instead of a walk over 1,400 types."""

from typing import Any

from ..patching import override


def install() -> None:
    """Indexes moto's instance types."""
    from moto.ec2.exceptions import InvalidInstanceTypeError
    from moto.ec2.models import EC2Backend
    from moto.ec2.utils import generic_filter

    by_name = {t["InstanceType"]: t for t in EC2Backend.instance_types}

    @override(EC2Backend, "describe_instance_types")
    def describe_instance_types(
        original: Any, self: Any, instance_types: Any = None, filters: Any = None
    ) -> list[Any]:
        wanted = instance_types or (filters or {}).get("instance-type", [])
        if not wanted or any("*" in name or "?" in name for name in wanted):
            return original(self, instance_types, filters)
        unknown = sorted(set(instance_types or []) - set(by_name))
        if unknown:
            raise InvalidInstanceTypeError(unknown, error_type="InvalidInstanceType")
        found = [by_name[name] for name in wanted if name in by_name]
        return generic_filter(filters, found) if filters else found


def exists(name: str) -> bool:
    """Whether EC2 knows the instance type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return name in INSTANCE_TYPES
