"""Auto Scaling groups: instances spread over the subnets, failures as scaling activities, and a
replacement for what was terminated behind the group's back."""

import json
from collections import Counter
from typing import Any

from . import durations
from .clock import utcnow
from .ec2.instances import alive
from .errors import AwsError
from .patching import override
from .world import World

NO_CAPACITY = (
    "We currently do not have sufficient capacity in the Availability Zone you requested."
)
ASG_TAG = "aws:autoscaling:groupName"


def living(group: Any) -> list[Any]:
    """The group's instances that count as capacity."""
    return [state.instance for state in group.instance_states if alive(state.instance)]


class Scaler:
    """Brings a group to its desired size, as the service would."""

    def __init__(self, world: World) -> None:
        self.world = world

    def reconcile(self, group: Any) -> None:
        """Launches or terminates until the group has its desired capacity."""
        states = group.instance_states
        group.instance_states = [s for s in states if s.instance.state != "terminated"]
        missing = (group.desired_capacity or 0) - len(living(group))
        for _ in range(missing):
            if not self._launch(group):
                self.world.clock.after(durations.INSTANCE_REPLACE, lambda: self._again(group))
                return
        if missing < 0:
            self._shrink(group, -missing)

    def _again(self, group: Any) -> None:
        if self.world.autoscaling.autoscaling_groups.get(group.name) is group:
            self.reconcile(group)

    def _launch(self, group: Any) -> bool:
        """Launches one, in another zone where the first has no capacity."""
        for subnet_id, zone in self._places(group):
            ended = self._launch_in(group, subnet_id, zone)
            if ended != "InsufficientInstanceCapacity":
                return ended is None
        return False

    def _launch_in(self, group: Any, subnet_id: str | None, zone: str) -> str | None:
        """Launches one in a zone; the error's code where EC2 refuses."""
        from moto.autoscaling.models import InstanceState
        from moto.core.exceptions import ServiceException

        where = json.dumps({"Subnet ID": subnet_id, "Availability Zone": zone})
        activity = _activity(group, "Launching a new EC2 instance", where)
        taken = {instance.rollcall_index for instance in living(group)}
        version = group.ec2_launch_template.get_version(group.launch_template_version)
        parameters = {"AvailabilityZone": zone, "InstanceType": version.instance_type}
        rule = self.world.rules.strike("autoscaling", "Launch", parameters)
        try:
            if rule:
                raise AwsError(
                    rule.get("code", "InsufficientInstanceCapacity"),
                    rule.get("message", NO_CAPACITY),
                )
            instance = self._run(group, subnet_id, version.number)
        except ServiceException as error:
            activity.update(
                StatusCode="Failed",
                EndTime=utcnow(),
                StatusMessage=f"{error.message} Launching EC2 instance failed. ({error.code})",
                Code=error.code,
            )
            return str(error.code)
        instance.autoscaling_group = group
        instance.rollcall_index = next(i for i in range(len(taken) + 1) if i not in taken)
        # EC2 numbers within one launch; here each launch is of one, so the group's ordinal is told.
        instance.ami_launch_index = instance.rollcall_index
        state = InstanceState(instance, lifecycle_state="Pending")
        group.instance_states = [*group.instance_states, state]
        activity.update(
            StatusCode="Successful",
            EndTime=utcnow(),
            Progress=100,
            Description=f"Launching a new EC2 instance: {instance.id}",
        )
        return None

    def _run(self, group: Any, subnet_id: str | None, version: int) -> Any:
        tags = {**group.get_propagated_tags(), ASG_TAG: group.name}
        reservation = self.world.ec2.run_instances(
            None,
            1,
            None,
            [],
            launch_template={
                "LaunchTemplateId": group.ec2_launch_template.id,
                "Version": version,
            },
            is_instance_type_default=True,
            subnet_id=subnet_id,
            region_name=group.region,
            tags={"instance": tags},
        )
        return reservation.instances[0]

    def _places(self, group: Any) -> list[tuple[str | None, str]]:
        """The subnets, those with the fewest instances first; in their order where they tie."""
        subnets = (group.vpc_zone_identifier or "").split(",")
        if not subnets[0]:
            return [(None, group.availability_zones[0])]
        used = Counter(instance.subnet_id for instance in living(group))
        zone = self.world.ec2.get_subnet
        return [
            (subnet, zone(subnet).availability_zone)
            for subnet in sorted(subnets, key=lambda subnet: used[subnet])
        ]

    def _shrink(self, group: Any, count: int) -> None:
        free = {s.instance.id for s in group.instance_states if not s.protected_from_scale_in}
        candidates = [instance for instance in living(group) if instance.id in free]
        candidates.sort(key=lambda instance: instance.rollcall_index, reverse=True)
        for instance in candidates[:count]:
            activity = _activity(group, f"Terminating EC2 instance: {instance.id}", "")
            activity.update(StatusCode="Successful", EndTime=utcnow(), Progress=100)
            self.world.ec2.terminate_instances([instance.id])


def _activity(group: Any, description: str, details: str) -> dict[str, Any]:
    activities = group.__dict__.setdefault("rollcall_activities", [])
    activity = {
        "ActivityId": f"{group._id}-{len(activities) + 1}",
        "AutoScalingGroupName": group.name,
        "Description": description,
        "Cause": f"At {utcnow():%Y-%m-%dT%H:%M:%SZ} desired and actual capacity differed.",
        "StartTime": utcnow(),
        "StatusCode": "InProgress",
        "Progress": 50,
        "Details": details,
    }
    activities.insert(0, activity)
    return activity


def failures(group: Any) -> list[dict[str, Any]]:
    """The launches that failed, newest first."""
    activities = group.__dict__.get("rollcall_activities", [])
    return [activity for activity in activities if activity["StatusCode"] == "Failed"]


def install(world: World) -> None:
    """Extends moto's Auto Scaling."""
    from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup
    from moto.autoscaling.responses import AutoScalingResponse
    from moto.core.exceptions import ServiceException
    from moto.core.responses import ActionResult

    scaler = Scaler(world)

    @override(FakeAutoScalingGroup, "set_desired_capacity")
    def set_desired_capacity(original: Any, self: Any, new_capacity: int | None) -> None:
        if self.ec2_launch_template is None or self.mixed_instances_policy:
            original(self, new_capacity)
            return
        self.desired_capacity = self.min_size if new_capacity is None else new_capacity
        scaler.reconcile(self)

    @override(AutoScalingBackend, "notify_terminate_instances")
    def notify_terminate_instances(original: Any, self: Any, instance_ids: list[str]) -> None:
        for group in list(self.autoscaling_groups.values()):
            lost = [s for s in group.instance_states if s.instance.id in instance_ids]
            for state in lost:
                state.lifecycle_state, state.health_status = "Terminating", "Unhealthy"
            if lost:
                world.clock.after(durations.INSTANCE_REPLACE, lambda g=group: scaler._again(g))

    @override(AutoScalingResponse, "describe_scaling_activities")
    def describe_scaling_activities(_original: Any, self: Any) -> ActionResult:
        name = self._get_param("AutoScalingGroupName")
        groups = self.autoscaling_backend.autoscaling_groups
        wanted = [groups[name]] if name in groups else [] if name else list(groups.values())
        found = [a for group in wanted for a in group.__dict__.get("rollcall_activities", [])]
        shown = [{k: v for k, v in a.items() if k != "Code"} for a in found]
        return ActionResult({"Activities": shown[: int(self._get_param("MaxRecords") or 100)]})

    @override(AutoScalingResponse, "delete_auto_scaling_group")
    def delete_auto_scaling_group(original: Any, self: Any) -> ActionResult:
        name = self._get_param("AutoScalingGroupName")
        group = self.autoscaling_backend.autoscaling_groups.get(name)
        force = str(self._get_param("ForceDelete")).lower() == "true"
        if group is not None and living(group) and not force:
            raise AwsError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot "
                "instance request(s) still in the group.",
            )
        return original(self)
