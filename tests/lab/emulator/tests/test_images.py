"""What a build of an image asks of EC2: key pair, stopped instance, image, attributes, and all of it gone again."""

from typing import Any

import pytest
from conftest import Emulator, start, until
from scenery import Network, image, network, refusal

TAGS = [{"Key": "rollcall:image-build", "Value": "one"}]


@pytest.fixture(scope="module")
def net(shared: Emulator) -> Network:
    """A network of this module's own."""
    return network(shared, "10.41.0.0/16")


def _instance(emulator: Emulator, net: Network, **more: Any) -> str:
    ec2 = emulator.client("ec2")
    asked = {"ImageId": image(emulator), "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    made = ec2.run_instances(**{**asked, "SubnetId": net.subnets[0], **more})["Instances"][0]
    until(lambda: _state(emulator, made["InstanceId"]) == "running")
    return made["InstanceId"]


def _state(emulator: Emulator, instance_id: str) -> str:
    found = emulator.client("ec2").describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]["State"]["Name"]


def _image(emulator: Emulator, image_id: str) -> dict[str, Any]:
    return emulator.client("ec2").describe_images(ImageIds=[image_id])["Images"][0]


def test_the_key_of_a_pair_reaches_the_instance(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    with refusal("InvalidKeyPair.NotFound"):
        _instance(emulator, net, KeyName="nobody's")
    pair = ec2.create_key_pair(KeyName="temporary", KeyType="ed25519")
    assert "PRIVATE KEY" in pair["KeyMaterial"]
    instance_id = _instance(emulator, net, KeyName="temporary")
    seen = {i["instanceId"]: i for i in emulator.control("GET", "instances")}[instance_id]
    assert seen["publicKey"].startswith("ssh-ed25519 ") and seen["publicKey"].endswith(" temporary")
    ec2.delete_key_pair(KeyName="temporary")
    assert ec2.describe_key_pairs()["KeyPairs"] == []
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_an_instance_stops_and_starts(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    instance_id = _instance(emulator, net)
    stopped = ec2.stop_instances(InstanceIds=[instance_id])["StoppingInstances"][0]
    assert stopped["CurrentState"]["Name"] == "stopping"
    until(lambda: _state(emulator, instance_id) == "stopped")
    ec2.start_instances(InstanceIds=[instance_id])
    until(lambda: _state(emulator, instance_id) == "running")
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_an_image_has_its_instances_volume_and_takes_its_time(
    emulator: Emulator, net: Network
) -> None:
    ec2 = emulator.client("ec2")
    volume = {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True}
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {**volume, "DeleteOnTermination": True}}]
    instance_id = _instance(emulator, net, BlockDeviceMappings=mapping)
    ec2.stop_instances(InstanceIds=[instance_id])
    with refusal("IncorrectInstanceState"):
        ec2.create_image(InstanceId=instance_id, Name="too-early")
    until(lambda: _state(emulator, instance_id) == "stopped")
    tags = [{"ResourceType": kind, "Tags": TAGS} for kind in ("image", "snapshot")]
    made = ec2.create_image(InstanceId=instance_id, Name="one", TagSpecifications=tags)["ImageId"]
    assert _image(emulator, made)["State"] == "pending"
    with refusal("InvalidAMIName.Duplicate"):
        ec2.create_image(InstanceId=instance_id, Name="one")
    until(lambda: _image(emulator, made)["State"] == "available")
    root = _image(emulator, made)["BlockDeviceMappings"][0]
    assert root["DeviceName"] == "/dev/xvda"
    assert root["Ebs"]["Encrypted"] and root["Ebs"]["VolumeSize"] == 30
    snapshot = ec2.describe_snapshots(SnapshotIds=[root["Ebs"]["SnapshotId"]])["Snapshots"][0]
    assert snapshot["Tags"] == TAGS and snapshot["Encrypted"]
    filters = [{"Name": "tag:rollcall:image-build", "Values": ["one"]}]
    found = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    assert [each["ImageId"] for each in found] == [made]
    ec2.terminate_instances(InstanceIds=[instance_id])
    ec2.deregister_image(ImageId=made)
    ec2.delete_snapshot(SnapshotId=root["Ebs"]["SnapshotId"])
    assert ec2.describe_images(Owners=["self"])["Images"] == []


def test_an_image_demands_version_two_of_its_instances(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    first = _instance(emulator, net)
    made = ec2.create_image(InstanceId=first, Name="two")["ImageId"]
    with refusal("InvalidAMIID.Unavailable"):
        _instance(emulator, net, ImageId=made)
    until(lambda: _image(emulator, made)["State"] == "available")
    ec2.modify_image_attribute(ImageId=made, ImdsSupport={"Value": "v2.0"})
    ec2.modify_image_attribute(ImageId=made, Description={"Value": "what it is"})
    seen = _image(emulator, made)
    assert (seen["ImdsSupport"], seen["Description"]) == ("v2.0", "what it is")
    second = _instance(emulator, net, ImageId=made)
    found = ec2.describe_instances(InstanceIds=[second])["Reservations"][0]["Instances"][0]
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    ec2.terminate_instances(InstanceIds=[first, second])


def test_an_image_waits_for_the_copy_of_its_disk(tmp_path: Any) -> None:
    emulator = start(tmp_path, 0.002, "--disks")
    try:
        ec2 = emulator.client("ec2")
        net = network(emulator, "10.42.0.0/16")
        instance_id = _instance(emulator, net)
        images = [
            ec2.create_image(InstanceId=instance_id, Name=name)["ImageId"]
            for name in ("kept", "lost", "waits")
        ]
        seen = {i["imageId"]: i for i in emulator.control("GET", "images")}
        assert set(seen) == set(images)
        assert seen[images[0]]["sourceInstanceId"] == instance_id
        emulator.control("POST", "disks", {images[0]: True, images[1]: False})
        until(lambda: _image(emulator, images[0])["State"] == "available")
        until(lambda: _image(emulator, images[1])["State"] == "failed")
        assert _image(emulator, images[2])["State"] == "pending"
    finally:
        emulator.close()
