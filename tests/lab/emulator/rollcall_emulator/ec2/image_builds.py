"""What a build of an image goes through: an instance that is stopped and keeps its disk, an image that is pending for a
while, with the instance's volume in its snapshot, and the attributes that are set on it."""

from typing import Any

from .. import durations
from ..patching import override
from ..world import World
from .errors import ec2_error

STOPPING, STOPPED, PENDING = (64, "stopping"), (80, "stopped"), (0, "pending")


def _set_state(instance: Any, state: tuple[int, str]) -> None:
    instance._state.code, instance._state.name = state


def _instances(world: World) -> None:
    from moto.ec2.models.instances import Instance, InstanceState

    @override(Instance, "stop")
    def stop(original: Any, self: Any) -> InstanceState:
        previous = InstanceState(self._state.name, self._state.code)
        if previous.name in ("stopping", "stopped"):
            return previous
        if previous.name != "running":
            raise _wrong_state(self, "stopped")
        _set_state(self, STOPPING)

        def finish() -> None:
            if self.state == "stopping":
                original(self)

        world.clock.after(durations.INSTANCE_STOP, finish)
        return previous

    @override(Instance, "start")
    def start(original: Any, self: Any) -> InstanceState:
        previous = InstanceState(self._state.name, self._state.code)
        if previous.name in ("pending", "running"):
            return previous
        if previous.name != "stopped":
            raise _wrong_state(self, "started")
        _set_state(self, PENDING)

        def finish() -> None:
            if self.state == "pending":
                original(self)

        world.clock.after(durations.INSTANCE_START, finish)
        return previous


def _wrong_state(instance: Any, what: str) -> Exception:
    return ec2_error(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {what}.",
    )


class Builds:
    """Images of instances. Where a lab keeps disks (`--disks`), an image waits for its copy."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create(
        self, backend: Any, instance_id: str, name: str, description: str, specifications: Any
    ) -> Any:
        """A pending image of an instance."""
        from moto.ec2.models.amis import Ami
        from moto.ec2.utils import random_ami_id

        instance = backend.get_instance(instance_id)
        if instance.state not in ("running", "stopped"):
            raise ec2_error(
                "IncorrectInstanceState",
                f"Instance '{instance_id}' is not 'running' or 'stopped'.",
            )
        for image in backend.amis.values():
            if image.name == name and image.owner_id == backend.account_id:
                raise ec2_error(
                    "InvalidAMIName.Duplicate",
                    f"AMI name {name} is already in use by AMI {image.id}",
                )
        source = backend.amis.get(instance.image_id)
        image = Ami(
            backend, random_ami_id(), instance=instance, name=name, description=description
        )
        _inherit(image, instance, source)
        for specification in specifications:
            target = image if specification["ResourceType"] == "image" else image.ebs_snapshot
            target.add_tags({tag["Key"]: tag.get("Value", "") for tag in specification["Tags"]})
        image.state, image.rollcall_disk, image.rollcall_due = "pending", None, False
        backend.amis[image.id] = image

        def due() -> None:
            image.rollcall_due = True
            self._reconsider(image)

        self.world.clock.after(durations.IMAGE_CREATE, due)
        return image

    def _reconsider(self, image: Any) -> None:
        if image.state != "pending" or not image.rollcall_due:
            return
        if image.rollcall_disk is None and self.world.settings.disks:
            return
        image.state = "failed" if image.rollcall_disk is False else "available"

    def told(self, disks: dict[str, bool]) -> None:
        """The lab has copied these disks, or could not."""
        for image_id, kept in disks.items():
            image = self.world.ec2.amis.get(image_id)
            if image is not None:
                image.rollcall_disk = kept
                self._reconsider(image)

    def view(self) -> list[dict[str, Any]]:
        """The images that were made here."""
        return [
            {
                "imageId": image.id,
                "name": image.name,
                "state": image.state,
                "sourceInstanceId": image.instance_id,
                "diskKept": image.rollcall_disk,
            }
            for image in self.world.ec2.amis.values()
            if image.instance_id
        ]


def _inherit(image: Any, instance: Any, source: Any) -> None:
    """What an image has of its instance's root volume and of the image that this booted from."""
    image.root_device_type = "ebs"
    image.root_device_name = source.root_device_name if source else "/dev/xvda"
    image.architecture = source.architecture if source else image.architecture
    image.boot_mode = source.boot_mode if source else image.boot_mode
    image.hypervisor = source.hypervisor if source else "xen"
    image.ena_support = True
    image.platform_details, image.usage_operation = "Linux/UNIX", "RunInstances"
    volumes = {path: device.volume_id for path, device in instance.get_block_device_mapping}
    volume = instance.ec2_backend.get_volume(volumes[image.root_device_name])
    snapshot = image.ebs_snapshot
    snapshot.volume, snapshot.encrypted = volume, volume.encrypted
    image.rollcall_root = {
        "DeviceName": image.root_device_name,
        "Ebs": {
            "SnapshotId": snapshot.id,
            "VolumeSize": volume.size,
            "VolumeType": volume.volume_type,
            "Encrypted": volume.encrypted,
            "DeleteOnTermination": True,
        },
    }


def _images(builds: Builds) -> None:
    from moto.core.responses import ActionResult
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.amis import Ami
    from moto.ec2.responses.amis import AmisResponse

    @override(EC2Backend, "create_image")
    def create_image(
        _original: Any,
        self: Any,
        instance_id: str,
        name: str,
        description: str,
        tag_specifications: Any,
    ) -> Any:
        return builds.create(self, instance_id, name, description, tag_specifications)

    mappings = Ami.block_device_mappings

    def block_device_mappings(self: Any) -> list[dict[str, Any]]:
        root = getattr(self, "rollcall_root", None)
        return [root] if root else mappings.__get__(self)

    Ami.block_device_mappings = property(block_device_mappings)

    @override(AmisResponse, "modify_image_attribute")
    def modify_image_attribute(original: Any, self: Any) -> ActionResult:
        image_id = self._get_param("ImageId")
        image = self.ec2_backend.describe_images(ami_ids=[image_id])[0]
        answer = original(self)
        support = self._get_param("ImdsSupport") or {}
        if support.get("Value"):
            if support["Value"] != "v2.0":
                raise ec2_error("InvalidParameterValue", "The only value of imdsSupport is v2.0")
            image.imds_support = support["Value"]
        description = self._get_param("Description") or {}
        if isinstance(description, dict) and description.get("Value"):
            image.description = description["Value"]
        return answer

    @override(AmisResponse, "deregister_image")
    def deregister_image(original: Any, self: Any) -> ActionResult:
        image = self.ec2_backend.amis.get(self._get_param("ImageId"))
        answer = original(self)
        if image is not None and self._get_bool_param("DeleteAssociatedSnapshots", False):
            self.ec2_backend.delete_snapshot(image.ebs_snapshot.id)
        return answer


def check_image(image: Any) -> None:
    """Nothing is launched from an image that is not there yet."""
    if image.state != "available":
        raise ec2_error(
            "InvalidAMIID.Unavailable",
            f"The image ID '[{image.id}]' is not available: it is {image.state}",
        )


def check_key(backend: Any, name: str | None) -> str | None:
    """The public key that an instance gets, as cloud-init finds it at IMDS."""
    if not name:
        return None
    pair = backend.key_pairs.get(name)
    if pair is None:
        raise ec2_error("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return " ".join([*pair.public_key.split()[:2], name])


def install(world: World) -> Builds:
    """Extends moto's images and instances."""
    builds = Builds(world)
    _instances(world)
    _images(builds)
    return builds
