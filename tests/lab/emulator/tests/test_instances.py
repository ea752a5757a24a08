"""Instances and launch templates outside of node groups."""

import base64
from typing import Any

import pytest
from conftest import Emulator, start, until
from scenery import Network, image, network, refusal, role, template


@pytest.fixture(scope="module")
def net(shared: Emulator) -> Network:
    """A network of this module's own."""
    return network(shared, "10.40.0.0/16")


def _state(ec2: Any, instance_id: str) -> str:
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    return found[0]["State"]["Name"]


def test_an_instance_lives_through_its_states(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    asked = {
        "ImageId": image(emulator), "InstanceType": "p5.48xlarge", "MinCount": 1, "MaxCount": 1,
        "SubnetId": net.subnets[0], "ClientToken": "one-instance",
    }  # fmt: skip
    made = ec2.run_instances(**asked)["Instances"][0]
    assert made["State"]["Name"] == "pending"
    instance_id = made["InstanceId"]
    assert ec2.run_instances(**asked)["Instances"][0]["InstanceId"] == instance_id
    until(lambda: _state(ec2, instance_id) == "running")
    assert made["PrivateIpAddress"].startswith("10.40.0.")
    with refusal("DependencyViolation"):
        ec2.delete_subnet(SubnetId=net.subnets[0])
    answer = ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == "running"
    assert answer["CurrentState"]["Name"] == "shutting-down"
    assert _state(ec2, instance_id) == "shutting-down"
    until(lambda: _state(ec2, instance_id) == "terminated")
    for found in (
        ec2.describe_network_interfaces(
            Filters=[{"Name": "subnet-id", "Values": [net.subnets[0]]}]
        )["NetworkInterfaces"],
        ec2.describe_volumes()["Volumes"],
    ):
        assert found == []
    with refusal("IdempotentInstanceTerminated"):
        ec2.run_instances(**asked)


def test_a_reboot_is_counted_and_needs_a_running_instance(
    emulator: Emulator, net: Network
) -> None:
    ec2 = emulator.client("ec2")
    made = ec2.run_instances(
        ImageId=image(emulator), InstanceType="m6i.large", MinCount=1, MaxCount=1,
        SubnetId=net.subnets[0],
    )["Instances"][0]  # fmt: skip
    instance_id = made["InstanceId"]
    until(lambda: _state(ec2, instance_id) == "running")

    def reboots() -> int:
        found = emulator.control("GET", "instances")
        return next(i["reboots"] for i in found if i["instanceId"] == instance_id)

    assert reboots() == 0
    ec2.reboot_instances(InstanceIds=[instance_id])
    assert (reboots(), _state(ec2, instance_id)) == (1, "running")
    ec2.terminate_instances(InstanceIds=[instance_id])
    until(lambda: _state(ec2, instance_id) == "terminated")
    with refusal("IncorrectInstanceState"):
        ec2.reboot_instances(InstanceIds=[instance_id])


def test_a_launch_takes_everything_from_its_template(emulator: Emulator, net: Network) -> None:
    ec2, iam = emulator.client("ec2"), emulator.client("iam")
    role(emulator, "launched", "ec2.amazonaws.com")
    iam.create_instance_profile(InstanceProfileName="launched")
    iam.add_role_to_instance_profile(InstanceProfileName="launched", RoleName="launched")
    group = ec2.create_security_group(GroupName="t", Description="t", VpcId=net.vpc)["GroupId"]
    tags = [{"Key": "rollcall:pool", "Value": "h100"}]
    reference = template(
        emulator,
        "everything",
        IamInstanceProfile={"Name": "launched"},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        SecurityGroupIds=[group],
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 200, "Encrypted": True}}
        ],
        TagSpecifications=[
            {"ResourceType": kind, "Tags": tags}
            for kind in ("instance", "volume", "network-interface")
        ],
    )
    launch = {
        "LaunchTemplate": {"LaunchTemplateId": reference["id"], "Version": "1"},
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": net.subnets[1],
    }

    def launched() -> Any:
        # The profile is new: EC2 does not know it until it has propagated.
        try:
            return ec2.run_instances(**launch)["Instances"][0]
        except ec2.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidParameterValue"
            return None

    instance_id = until(launched)["InstanceId"]
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert found["InstanceType"] == "p5.48xlarge"
    assert found["ImageId"] == image(emulator)
    assert found["IamInstanceProfile"]["Arn"].endswith(":instance-profile/launched")
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert [g["GroupId"] for g in found["SecurityGroups"]] == [group]
    assert {"Key": "rollcall:pool", "Value": "h100"} in found["Tags"]
    assert len(found["BlockDeviceMappings"]) == 1
    volume_id = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    volume = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    assert (volume["Size"], volume["Encrypted"], volume["Tags"]) == (200, True, tags)
    interface_id = found["NetworkInterfaces"][0]["NetworkInterfaceId"]
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])
    assert interface["NetworkInterfaces"][0]["TagSet"] == tags
    user_data = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    assert base64.b64decode(user_data["UserData"]["Value"]) == b"MIME of everything"
    seen = next(i for i in emulator.control("GET", "instances") if i["instanceId"] == instance_id)
    assert seen["roleArn"].endswith(":role/launched")
    assert base64.b64decode(seen["userData"]) == b"MIME of everything"
    ec2.terminate_instances(InstanceIds=[instance_id])
    until(lambda: _state(ec2, instance_id) == "terminated")
    ec2.delete_security_group(GroupId=group)


def test_a_new_profile_is_not_known_at_once(tmp_path: Any) -> None:
    emulator = start(tmp_path, 1.0)
    ec2, iam = emulator.client("ec2"), emulator.client("iam")
    role(emulator, "fresh", "ec2.amazonaws.com")
    iam.create_instance_profile(InstanceProfileName="fresh")
    iam.add_role_to_instance_profile(InstanceProfileName="fresh", RoleName="fresh")
    with refusal("InvalidParameterValue", "Invalid IAM Instance Profile name"):
        ec2.run_instances(
            ImageId=image(emulator), InstanceType="t3.medium", MinCount=1, MaxCount=1,
            IamInstanceProfile={"Name": "fresh"},
        )  # fmt: skip
    emulator.close()


def test_what_ec2_refuses_to_launch(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    good = {
        "ImageId": image(emulator), "InstanceType": "t3.medium", "MinCount": 1, "MaxCount": 1,
        "SubnetId": net.subnets[0],
    }  # fmt: skip
    with refusal("InvalidAMIID.NotFound"):
        ec2.run_instances(**{**good, "ImageId": "ami-00000000000000000"})
    with refusal("InvalidParameterValue", "p9.huge"):
        ec2.run_instances(**{**good, "InstanceType": "p9.huge"})
    with refusal("InvalidParameterValue", "16384"):
        ec2.run_instances(**good, UserData="x" * 16385)
    with refusal("InvalidSubnetID.NotFound"):
        ec2.run_instances(**{**good, "SubnetId": "subnet-00000000000000000"})
    with refusal("InsufficientFreeAddressesInSubnet"):
        ec2.run_instances(**{**good, "MinCount": 300, "MaxCount": 300})
    with refusal("InvalidLaunchTemplateId.NotFound"):
        ec2.run_instances(
            LaunchTemplate={"LaunchTemplateId": "lt-00000000000000000"}, MinCount=1, MaxCount=1
        )
    with refusal("DryRunOperation"):
        ec2.run_instances(**good, DryRun=True)
    free = ec2.describe_subnets(SubnetIds=[net.subnets[0]])["Subnets"][0]
    assert free["AvailableIpAddressCount"] == 251


def test_templates_have_limits_tags_and_versions(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    big = base64.b64encode(b"x" * 16385).decode()
    with refusal("InvalidParameterValue", "16384"):
        ec2.create_launch_template(
            LaunchTemplateName="big", LaunchTemplateData={"UserData": big}
        )
    made = ec2.create_launch_template(
        LaunchTemplateName="tagged",
        LaunchTemplateData={"InstanceType": "t3.medium", "ImageId": image(emulator)},
        TagSpecifications=[
            {"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}
        ],
        ClientToken="tagged-token",
    )["LaunchTemplate"]
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    again = ec2.create_launch_template(
        LaunchTemplateName="tagged",
        LaunchTemplateData={"InstanceType": "t3.medium", "ImageId": image(emulator)},
        TagSpecifications=[
            {"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}
        ],
        ClientToken="tagged-token",
    )["LaunchTemplate"]
    assert again["LaunchTemplateId"] == made["LaunchTemplateId"]
    with refusal("InvalidLaunchTemplateName.AlreadyExistsException"):
        ec2.create_launch_template(
            LaunchTemplateName="tagged", LaunchTemplateData={"InstanceType": "t3.medium"}
        )
    ec2.create_launch_template_version(
        LaunchTemplateId=made["LaunchTemplateId"],
        SourceVersion="1",
        LaunchTemplateData={"InstanceType": "t3.large"},
    )
    latest = ec2.describe_launch_template_versions(
        LaunchTemplateId=made["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"][0]
    assert latest["LaunchTemplateData"] == {
        "InstanceType": "t3.large",
        "ImageId": image(emulator),
    }
    with refusal("InvalidLaunchTemplateId.NotFound"):
        ec2.describe_launch_templates(LaunchTemplateIds=["lt-00000000000000000"])
    with refusal("InvalidLaunchTemplateId.NotFound"):
        ec2.delete_launch_template(LaunchTemplateId="lt-00000000000000000")
    with refusal("InvalidLaunchTemplateName.NotFoundException"):
        ec2.delete_launch_template(LaunchTemplateName="nobody")
    ec2.delete_launch_template(LaunchTemplateName="tagged")


def test_gpu_types_say_what_they_carry(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    found = ec2.describe_instance_types(InstanceTypes=["p5.48xlarge"])["InstanceTypes"]
    assert [(g["Name"], g["Count"]) for g in found[0]["GpuInfo"]["Gpus"]] == [("H100", 8)]
    with refusal("InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["p9.huge"])


def test_the_console_is_the_nodes_own_file(emulator: Emulator, net: Network) -> None:
    ec2 = emulator.client("ec2")
    instance_id = ec2.run_instances(
        ImageId=image(emulator), InstanceType="t3.medium", MinCount=1, MaxCount=1,
        SubnetId=net.subnets[0],
    )["Instances"][0]["InstanceId"]  # fmt: skip
    assert not ec2.get_console_output(InstanceId=instance_id).get("Output")
    console = emulator.state_dir / "nodes" / instance_id / "root" / "dev" / "console"
    console.parent.mkdir(parents=True)
    console.write_bytes(b"x" * 70000 + b"\xff\nROLLCALL {}\n")
    # boto3 decodes; bytes that are no text become replacement characters.
    output = ec2.get_console_output(InstanceId=instance_id, Latest=True)["Output"]
    assert output.endswith("ROLLCALL {}\n")
    assert len(output.encode("latin-1", "replace")) == 65536
    ec2.terminate_instances(InstanceIds=[instance_id])
    with refusal("InvalidInstanceID.NotFound"):
        ec2.get_console_output(InstanceId="i-00000000000000000")


def test_offerings_are_of_this_region(emulator: Emulator) -> None:
    found = emulator.client("ec2").describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": ["p5.48xlarge"]}],
    )["InstanceTypeOfferings"]
    assert {o["Location"] for o in found} >= {"us-east-1a", "us-east-1b"}


def test_tags_of_a_launch_template_change(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    tags = [{"ResourceType": "launch-template", "Tags": [{"Key": "cost", "Value": "a"}]}]
    made = ec2.create_launch_template(
        LaunchTemplateName="tagged", LaunchTemplateData={}, TagSpecifications=tags
    )["LaunchTemplate"]["LaunchTemplateId"]
    ec2.create_tags(Resources=[made], Tags=[{"Key": "cost", "Value": "b"}])
    found = ec2.describe_launch_templates(LaunchTemplateIds=[made])["LaunchTemplates"][0]
    assert found["Tags"] == [{"Key": "cost", "Value": "b"}]
    ec2.delete_launch_template(LaunchTemplateId=made)


def test_launch_templates_come_in_pages_and_none_is_lost(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    names = [f"paged-{number}" for number in range(20)]
    for name in names:
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={})
    filters = [{"Name": "launch-template-name", "Values": names}]
    assert len(ec2.describe_launch_templates(Filters=filters)["LaunchTemplates"]) == 20
    pages = list(
        ec2.get_paginator("describe_launch_templates").paginate(
            Filters=filters, PaginationConfig={"PageSize": 8}
        )
    )
    assert [len(page["LaunchTemplates"]) for page in pages] == [8, 8, 4]
    for name in names:
        ec2.delete_launch_template(LaunchTemplateName=name)


def test_the_newest_versions_of_all_templates_come_in_pages(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    for number in range(20):
        name = f"t-{number}"
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"KeyName": "old"})
        ec2.create_launch_template_version(
            LaunchTemplateName=name, LaunchTemplateData={"KeyName": "new"}
        )
    pages = ec2.get_paginator("describe_launch_template_versions").paginate(
        Versions=["$Latest"], PaginationConfig={"PageSize": 15}
    )
    found = [page["LaunchTemplateVersions"] for page in pages]
    assert len(found) > 1 and all(len(page) == 15 for page in found[:-1])
    ours = [one for page in found for one in page if one["LaunchTemplateName"].startswith("t-")]
    assert {one["LaunchTemplateData"]["KeyName"] for one in ours} == {"new"}
    assert len(ours) == 20
    for one in ours:
        ec2.delete_launch_template(LaunchTemplateId=one["LaunchTemplateId"])
