"""Instances: launches complete from their template, states that take time, clean terminations."""

from typing import Any

from .. import durations
from ..clock import utcnow
from ..patching import override
from ..request import decoded_user_data
from ..world import World
from . import image_builds, instance_types, interfaces
from .errors import check_user_data, ec2_error

PENDING, RUNNING, SHUTTING_DOWN = (0, "pending"), (16, "running"), (32, "shutting-down")
DEFAULT_VOLUME = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "DeleteOnTermination": True}}


def alive(instance: Any) -> bool:
    """Whether the instance counts as capacity."""
    return instance.state in ("pending", "running")


def _set_state(instance: Any, state: tuple[int, str]) -> None:
    instance._state.code, instance._state.name = state


class Launcher:
    """Starts instances as EC2 does: template and request merged, checked, then pending."""

    def __init__(self, world: World) -> None:
        self.world = world

    def launch(
        self,
        original: Any,
        backend: Any,
        image_id: str,
        count: int,
        user_data: Any,
        security_groups: list[str],
        **kwargs: Any,
    ) -> Any:
        """Replaces moto's `run_instances`, which every launch path ends in."""
        template = self._template(backend, kwargs.get("launch_template"))
        image_id = image_id or template.get("ImageId")
        user_data = user_data if user_data is not None else template.get("UserData")
        kwargs = self._merged(template, kwargs)
        if getattr(backend.amis.get(image_id), "imds_support", None) == "v2.0":
            kwargs["metadata_options"].setdefault("HttpTokens", "required")
        self._check(backend, image_id, count, user_data, security_groups, kwargs)
        place = self._place(backend, template, kwargs)
        if kwargs.get("nics"):
            kwargs["nics"] = _kept(kwargs["nics"])
        profile = self._profile(kwargs, template)
        key_name = kwargs.get("key_name") or template.get("KeyName")
        public_key = image_builds.check_key(backend, key_name)
        reservation = original(
            backend, image_id, count, user_data, security_groups or [], **kwargs
        )
        tags = _tag_specifications(template)
        for resource, values in (kwargs.get("tags") or {}).items():
            tags[resource] = {**tags.get(resource, {}), **values}
        for instance in reservation.instances:
            instance.rollcall_public_key = public_key
            instance.rollcall_placement_group, instance.capacity_reservation_id = place
            self._complete(backend, instance, profile, tags)
        return reservation

    def _place(
        self, backend: Any, template: dict[str, Any], kwargs: dict[str, Any]
    ) -> tuple[str | None, str | None]:
        """The placement group and the reservation that the template names, when they take one."""
        subnet = backend.get_subnet(kwargs["subnet_id"]) if kwargs.get("subnet_id") else None
        zone = subnet.availability_zone if subnet else None
        group = (template.get("Placement") or {}).get("GroupName")
        if group:
            self.world.placement.check(group, zone)
        target = (template.get("CapacityReservationSpecification") or {}).get(
            "CapacityReservationTarget", {}
        )
        reservation = target.get("CapacityReservationId")
        if reservation:
            market = (template.get("InstanceMarketOptions") or {}).get("MarketType")
            kind = kwargs["instance_type"]
            self.world.reservations.check(reservation, kind, zone, market == "capacity-block")
        return group, reservation

    @staticmethod
    def _template(backend: Any, reference: Any) -> dict[str, Any]:
        return backend._get_template_from_args(reference).data if reference else {}

    @staticmethod
    def _merged(template: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The request's words win over the template's."""
        merged = dict(kwargs)
        if not merged.get("instance_type") or merged.get("is_instance_type_default"):
            merged["instance_type"] = template.get("InstanceType") or "m1.small"
        merged["is_instance_type_default"] = False
        interfaces = merged.get("nics") or _interfaces(template, merged.get("subnet_id"))
        if interfaces:
            merged["nics"] = interfaces
            merged["subnet_id"] = merged.get("subnet_id") or interfaces[0].get("SubnetId")
        merged["security_group_ids"] = list(
            merged.get("security_group_ids") or template.get("SecurityGroupIds") or []
        )
        merged["metadata_options"] = {
            **template.get("MetadataOptions", {}),
            **(merged.get("metadata_options") or {}),
        }
        mappings = merged.get("block_device_mappings") or template.get("BlockDeviceMappings")
        merged["block_device_mappings"] = _volumes(mappings or [DEFAULT_VOLUME])
        return merged

    @staticmethod
    def _check(
        backend: Any,
        image_id: str | None,
        count: int,
        user_data: Any,
        security_groups: list[str],
        kwargs: dict[str, Any],
    ) -> None:
        if not image_id:
            raise ec2_error("MissingParameter", "The request must contain the parameter ImageId")
        if image_id not in backend.amis:
            raise ec2_error(
                "InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist"
            )
        image_builds.check_image(backend.amis[image_id])
        if not instance_types.exists(kwargs["instance_type"]):
            raise ec2_error(
                "InvalidParameterValue",
                f"Invalid value '{kwargs['instance_type']}' for InstanceType.",
            )
        if kwargs.get("nics") and (kwargs["security_group_ids"] or security_groups):
            raise ec2_error(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level security groups may not be specified "
                "on the same request",
            )
        check_user_data(decoded_user_data(str(user_data) if user_data else None))
        if kwargs.get("nics"):
            interfaces.check(kwargs["instance_type"], kwargs["nics"])
        if kwargs.get("subnet_id"):
            subnet = backend.get_subnet(kwargs["subnet_id"])
            free = subnet.available_ip_address_count
            if count > free:
                raise ec2_error(
                    "InsufficientFreeAddressesInSubnet",
                    f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the "
                    "requested number of instances.",
                )

    def _profile(self, kwargs: dict[str, Any], template: dict[str, Any]) -> Any:
        named = template.get("IamInstanceProfile", {})
        name = kwargs.get("iam_instance_profile_name") or named.get("Name")
        arn = kwargs.get("iam_instance_profile_arn") or named.get("Arn")
        if not name and not arn:
            return None
        name = name or arn.rsplit("/", 1)[-1]
        profile = self.world.iam.instance_profiles.get(name)
        if profile is None or not self._propagated(profile):
            raise ec2_error(
                "InvalidParameterValue",
                f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM "
                "Instance Profile name",
            )
        return profile

    def _propagated(self, profile: Any) -> bool:
        """IAM is eventually consistent: EC2 learns of a new profile after a while."""
        age = (utcnow() - _aware(profile.create_date)).total_seconds()
        return age >= durations.INSTANCE_PROFILE_PROPAGATION * self.world.clock.speed

    def _complete(
        self, backend: Any, instance: Any, profile: Any, tags: dict[str, dict[str, str]]
    ) -> None:
        instance.security_groups = instance.security_groups or [
            group for nic in instance.nics.values() for group in nic.group_set
        ]
        instance.add_tags(tags.get("instance", {}))
        for nic in instance.nics.values():
            nic.delete_on_termination = True
            nic.add_tags(tags.get("network-interface", {}))
        for _, device in instance.get_block_device_mapping:
            backend.get_volume(device.volume_id).add_tags(tags.get("volume", {}))
        if profile is not None:
            backend.associate_iam_instance_profile(
                instance.id, iam_instance_profile_name=profile.name
            )
            role = profile.roles[0].arn if profile.roles else None
            instance.rollcall_profile = (role, profile.arn)
        _set_state(instance, PENDING)
        instance.state_reason = None
        self.world.clock.after(durations.INSTANCE_START, lambda: self._started(instance))

    @staticmethod
    def _started(instance: Any) -> None:
        if instance.state == "pending":
            _set_state(instance, RUNNING)
            group = getattr(instance, "autoscaling_group", None)
            for state in group.instance_states if group else []:
                if state.instance is instance:
                    state.lifecycle_state = "InService"


def _aware(moment: Any) -> Any:
    from datetime import UTC

    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _interfaces(template: dict[str, Any], subnet_id: str | None) -> list[dict[str, Any]]:
    """The template's interfaces, placed in the subnet that the launch chose."""
    interfaces = []
    for spec in template.get("NetworkInterfaces", []):
        placed = dict(spec)
        placed.setdefault("DeviceIndex", 0)
        if subnet_id:
            placed.setdefault("SubnetId", subnet_id)
        interfaces.append(placed)
    return interfaces


def _kept(interfaces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One interface per device index is all moto keeps; EFA cards beyond the first have index 1."""
    return list({int(nic.get("DeviceIndex") or 0): nic for nic in reversed(interfaces)}.values())[::-1]


def _volumes(mappings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    volumes = []
    for mapping in mappings:
        ebs = {"VolumeSize": 20, "DeleteOnTermination": True, **mapping.get("Ebs", {})}
        volumes.append({**mapping, "Ebs": ebs})
    return volumes


def _tag_specifications(template: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        spec["ResourceType"]: {tag["Key"]: tag.get("Value", "") for tag in spec.get("Tags", [])}
        for spec in template.get("TagSpecifications", [])
    }


def install(world: World) -> None:
    """Extends moto's instances."""
    from moto.core.responses import ActionResult
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.instances import Instance, InstanceState
    from moto.ec2.responses.instances import InstanceResponse
    from moto.ec2.utils import parse_user_data

    launcher = Launcher(world)

    @override(EC2Backend, "run_instances")
    def run_instances(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        return launcher.launch(original, self, *args, **kwargs)

    @override(InstanceResponse, "run_instances")
    def run_instances_response(_original: Any, self: Any) -> ActionResult:
        get = self._get_param
        wanted = int(get("MaxCount") or get("MinCount") or 1)
        profile = get("IamInstanceProfile", {})
        self.error_on_dryrun()
        reservation = self.ec2_backend.run_instances(
            get("ImageId"),
            wanted,
            parse_user_data(get("UserData")),
            get("SecurityGroups", []),
            instance_type=get("InstanceType"),
            is_instance_type_default=not get("InstanceType"),
            placement=get("Placement.AvailabilityZone"),
            region_name=self.region,
            subnet_id=get("SubnetId"),
            key_name=get("KeyName"),
            security_group_ids=get("SecurityGroupIds", []),
            nics=get("NetworkInterfaces", []),
            private_ip=get("PrivateIpAddress"),
            tags=self._parse_tag_specification(),
            block_device_mappings=get("BlockDeviceMappings", []),
            instance_market_options=get("InstanceMarketOptions.MarketType", {}),
            launch_template=get("LaunchTemplate", {}),
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
            metadata_options=get("MetadataOptions", {}),
            client_token=get("ClientToken"),
        )
        return ActionResult(reservation)

    @override(Instance, "terminate")
    def terminate(original: Any, self: Any) -> InstanceState:
        previous = InstanceState(self._state.name, self._state.code)
        if previous.name in ("shutting-down", "terminated"):
            return previous
        _set_state(self, SHUTTING_DOWN)
        addresses = [(nic.subnet, nic.private_ip_address) for nic in self.nics.values()]

        def finish() -> None:
            original(self)
            for subnet, address in addresses:
                subnet.del_subnet_ip(address)

        world.clock.after(durations.INSTANCE_STOP, finish)
        return previous

    @override(Instance, "reboot")
    def reboot(_original: Any, self: Any) -> None:
        """The state stays `running`; the lab sees the count and restarts the machine."""
        if self.state != "running":
            raise ec2_error(
                "IncorrectInstanceState",
                f"The instance '{self.id}' is not in a state from which it can be rebooted.",
            )
        self.rollcall_reboots = getattr(self, "rollcall_reboots", 0) + 1
