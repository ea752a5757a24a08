"""Capacity reservations and blocks: what a targeted launch finds in them."""

from datetime import UTC, datetime
from typing import Any

from ..clock import utcnow
from ..world import World
from . import taggable
from .errors import ec2_error


class Reservations:
    """The account's capacity reservations, by id."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reservations: dict[str, Any] = {}

    def create(self, instance_type: str, zone: str, count: int, tags: dict[str, str]) -> Any:
        """CreateCapacityReservation."""
        made = taggable.resource(self.world.ec2, "cr")
        made.instance_type, made.zone, made.count = instance_type, zone, count
        made.state, made.kind, made.placement_group_arn = "active", "default", None
        made.start, made.end = utcnow(), None
        made.add_tags(tags)
        self.reservations[made.id] = made
        return made

    def change(self, reservation_id: str, fields: dict[str, Any]) -> None:
        """What only time or money changes: a block, a later start, an end, a state."""
        made = self.named(reservation_id)
        made.kind = fields.get("kind", made.kind)
        made.state = fields.get("state", made.state)
        made.placement_group_arn = fields.get("placementGroupArn", made.placement_group_arn)
        for side in ("start", "end"):
            if side in fields:
                setattr(made, side, datetime.fromisoformat(fields[side]).astimezone(UTC))

    def named(self, reservation_id: str) -> Any:
        """The reservation, or EC2's refusal."""
        if reservation_id not in self.reservations:
            raise ec2_error(
                "InvalidCapacityReservationId.NotFound",
                f"The capacity reservation '{reservation_id}' does not exist.",
            )
        return self.reservations[reservation_id]

    def used(self, reservation_id: str) -> int:
        """The instances in a reservation that count as capacity."""
        return sum(
            getattr(instance, "capacity_reservation_id", None) == reservation_id
            and instance.state in ("pending", "running")
            for reservation in self.world.ec2.reservations.values()
            for instance in reservation.instances
        )

    def check(self, reservation_id: str, instance_type: str, zone: str | None, block: bool) -> None:
        """Whether an instance may be launched into the reservation."""
        made = self.named(reservation_id)
        fits = made.instance_type == instance_type and zone in (None, made.zone)
        if not fits or (made.kind == "capacity-block") != block:
            raise ec2_error(
                "InvalidParameterValue",
                f"The capacity reservation '{reservation_id}' does not match the instance.",
            )
        if made.state != "active" or self.used(reservation_id) >= made.count:
            raise ec2_error(
                "ReservationCapacityExceeded",
                f"The requested reservation '{reservation_id}' does not have sufficient compatible "
                "and available capacity for this request.",
            )

    def described(self, made: Any) -> dict[str, Any]:
        """The wire form."""
        zones = {zone.name: zone.zone_id for zone in self.world.ec2.describe_availability_zones()}
        return {
            "CapacityReservationId": made.id,
            "ReservationType": made.kind,
            "State": made.state,
            "InstanceType": made.instance_type,
            "InstancePlatform": "Linux/UNIX",
            "AvailabilityZone": made.zone,
            "AvailabilityZoneId": zones[made.zone],
            "TotalInstanceCount": made.count,
            "AvailableInstanceCount": made.count - self.used(made.id),
            "InstanceMatchCriteria": "targeted",
            "PlacementGroupArn": made.placement_group_arn,
            "StartDate": made.start,
            "EndDate": made.end,
            "Tags": taggable.tags_of(made),
        }


def install(world: World) -> Reservations:
    """Adds the operations to moto's EC2."""
    from moto.core.responses import ActionResult
    from moto.ec2.responses import EC2Response
    from moto.ec2.utils import filter_dict_attribute_mapping, generic_filter

    store = Reservations(world)
    filter_dict_attribute_mapping["capacity-reservation-id"] = "capacity_reservation_id"

    def create_capacity_reservation(self: Any) -> ActionResult:
        made = store.create(
            self._get_param("InstanceType"),
            self._get_param("AvailabilityZone"),
            int(self._get_param("InstanceCount")),
            self._parse_tag_specification().get("capacity-reservation", {}),
        )
        return ActionResult({"CapacityReservation": store.described(made)})

    def cancel_capacity_reservation(self: Any) -> ActionResult:
        store.named(self._get_param("CapacityReservationId")).state = "cancelled"
        return ActionResult({"Return": True})

    def describe_capacity_reservations(self: Any) -> ActionResult:
        ids = self._get_param("CapacityReservationIds", [])
        found = [store.named(one) for one in ids] if ids else list(store.reservations.values())
        found = generic_filter(self._filters_from_querystring(), found)
        return ActionResult({"CapacityReservations": [store.described(made) for made in found]})

    for operation in (
        create_capacity_reservation,
        cancel_capacity_reservation,
        describe_capacity_reservations,
    ):
        setattr(EC2Response, operation.__name__, operation)
    return store
