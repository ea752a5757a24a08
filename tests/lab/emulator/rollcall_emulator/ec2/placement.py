"""Placement groups: made, tagged, refused while an instance is in them. A cluster group lies in one
zone."""

from typing import Any

from ..world import ACCOUNT, PARTITION, REGION, World
from . import taggable
from .errors import ec2_error


class PlacementGroups:
    """The account's placement groups, by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.groups: dict[str, Any] = {}

    def create(self, name: str, strategy: str, tags: dict[str, str]) -> Any:
        """CreatePlacementGroup."""
        if name in self.groups:
            raise ec2_error(
                "InvalidPlacementGroup.Duplicate", f"The placement group '{name}' already exists."
            )
        group = taggable.resource(self.world.ec2, "pg")
        group.group_name, group.strategy, group.state = name, strategy, "available"
        group.add_tags(tags)
        self.groups[name] = group
        return group

    def delete(self, name: str) -> None:
        """DeletePlacementGroup."""
        self.named(name)
        if any(True for _ in self.members(name)):
            raise ec2_error(
                "InvalidPlacementGroup.InUse",
                f"The placement group '{name}' is in use and may not be deleted.",
            )
        del self.groups[name]

    def named(self, name: str) -> Any:
        """The group, or EC2's refusal."""
        if name not in self.groups:
            raise ec2_error(
                "InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown."
            )
        return self.groups[name]

    def members(self, name: str) -> Any:
        """The instances in a group that are not gone."""
        for reservation in self.world.ec2.reservations.values():
            for instance in reservation.instances:
                placed = getattr(instance, "rollcall_placement_group", None)
                if placed == name and instance.state != "terminated":
                    yield instance

    def check(self, name: str, zone: str | None) -> None:
        """Whether an instance may be launched into the group, in that zone."""
        group = self.named(name)
        taken = {instance.placement.zone for instance in self.members(name)}
        if group.strategy == "cluster" and zone and taken - {zone}:
            raise ec2_error(
                "InvalidParameterCombination",
                f"The placement group '{name}' lies in another Availability Zone than {zone}.",
            )


def described(group: Any) -> dict[str, Any]:
    """The wire form."""
    return {
        "GroupName": group.group_name,
        "GroupId": group.id,
        "GroupArn": f"arn:{PARTITION}:ec2:{REGION}:{ACCOUNT}:placement-group/{group.group_name}",
        "Strategy": group.strategy,
        "State": group.state,
        "Tags": taggable.tags_of(group),
    }


def install(world: World) -> PlacementGroups:
    """Adds the operations to moto's EC2."""
    from moto.core.responses import ActionResult
    from moto.ec2.responses import EC2Response
    from moto.ec2.utils import generic_filter

    store = PlacementGroups(world)

    def create_placement_group(self: Any) -> ActionResult:
        tags = self._parse_tag_specification().get("placement-group", {})
        name, strategy = self._get_param("GroupName"), self._get_param("Strategy") or "cluster"
        return ActionResult({"PlacementGroup": described(store.create(name, strategy, tags))})

    def delete_placement_group(self: Any) -> ActionResult:
        store.delete(self._get_param("GroupName"))
        return ActionResult({})

    def describe_placement_groups(self: Any) -> ActionResult:
        names = self._get_param("GroupNames", [])
        found = [store.named(name) for name in names] if names else list(store.groups.values())
        found = generic_filter(self._filters_from_querystring(), found)
        return ActionResult({"PlacementGroups": [described(group) for group in found]})

    for operation in (create_placement_group, delete_placement_group, describe_placement_groups):
        setattr(EC2Response, operation.__name__, operation)
    return store
