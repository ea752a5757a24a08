"""Managed node groups: what EKS refuses, and that they really launch, scale, replace and go."""

import base64
import json
from typing import Any

import pytest
from conftest import Emulator, start, until
from scenery import (
    Network,
    cluster,
    delete_nodegroup,
    image,
    instances_of,
    network,
    refusal,
    role,
    template,
)

Prod = tuple[dict[str, Any], Network]


def _group(emulator: Emulator, net: Network, name: str, size: int = 2, **more: Any) -> Any:
    asked = {
        "clusterName": "prod",
        "nodegroupName": name,
        "subnets": net.subnets,
        "nodeRole": role(emulator, "node", "ec2.amazonaws.com"),
        "scalingConfig": {"minSize": 0, "maxSize": 9, "desiredSize": size},
        **more,
    }
    return emulator.client("eks").create_nodegroup(**asked)["nodegroup"]


def _status(emulator: Emulator, name: str) -> str:
    found = emulator.client("eks").describe_nodegroup(clusterName="prod", nodegroupName=name)
    return found["nodegroup"]["status"]


def _running(emulator: Emulator, name: str, count: int) -> list[dict[str, Any]]:
    def found() -> Any:
        members = instances_of(emulator, name)
        running = [i for i in members if i["state"] == "running"]
        return running if len(running) == len(members) == count else None

    return until(found)


def _join(emulator: Emulator, members: list[dict[str, Any]], ready: bool = True) -> None:
    registered = {member["instanceId"]: ready for member in members}
    emulator.control("POST", "nodes", {"registered": registered})


def test_a_group_launches_joins_scales_and_goes(emulator: Emulator, prod: Prod) -> None:
    found, net = prod
    eks, ec2 = emulator.client("eks"), emulator.client("ec2")
    reference = template(
        emulator,
        "h100",
        SecurityGroupIds=[found["resourcesVpcConfig"]["clusterSecurityGroupId"]],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "rollcall:pool", "Value": "h100"}]}
        ],
    )
    asked = {"launchTemplate": reference, "clientRequestToken": "g-1", "labels": {"a": "b"}}
    made = _group(emulator, net, "h100", 3, **asked)
    assert made["status"] == "CREATING"
    assert _group(emulator, net, "h100", 3, **asked)["nodegroupArn"] == made["nodegroupArn"]
    with refusal("ResourceInUseException"):
        _group(emulator, net, "h100", 3, **{**asked, "clientRequestToken": "g-2"})
    members = _running(emulator, "h100", 3)
    assert [m["index"] for m in members] == [0, 1, 2]
    assert {m["subnetId"] for m in members} == set(net.subnets)
    first = members[0]
    assert base64.b64decode(first["userData"]) == b"MIME of h100"
    assert first["roleArn"].endswith(":role/node")
    assert first["type"] == "p5.48xlarge"
    described = eks.describe_nodegroup(clusterName="prod", nodegroupName="h100")["nodegroup"]
    group_name = described["resources"]["autoScalingGroups"][0]["name"]
    assert described["amiType"] == "CUSTOM"
    assert described["launchTemplate"]["id"] == reference["id"]
    expected = {
        "eks:cluster-name": "prod",
        "eks:nodegroup-name": "h100",
        "kubernetes.io/cluster/prod": "owned",
        "aws:autoscaling:groupName": group_name,
        "rollcall:pool": "h100",
    }
    assert expected.items() <= first["tags"].items()
    seen = ec2.describe_instances(InstanceIds=[members[2]["instanceId"]])
    instance = seen["Reservations"][0]["Instances"][0]
    assert instance["AmiLaunchIndex"] == 2
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    entries = eks.list_access_entries(clusterName="prod")["accessEntries"]
    assert "arn:aws:iam::123456789012:role/node" in entries

    # Two of three are not enough; a node that is not Ready is not enough either.
    _join(emulator, members[:2])
    _join(emulator, members[2:], ready=False)
    assert _status(emulator, "h100") == "CREATING"
    with refusal("ResourceInUseException"):
        eks.update_nodegroup_config(
            clusterName="prod", nodegroupName="h100", scalingConfig={"desiredSize": 4}
        )
    _join(emulator, members)
    until(lambda: _status(emulator, "h100") == "ACTIVE")
    with refusal("ResourceInUseException", "nodegroups attached"):
        eks.delete_cluster(name="prod")

    update = eks.update_nodegroup_config(
        clusterName="prod",
        nodegroupName="h100",
        scalingConfig={"desiredSize": 4},
        labels={"addOrUpdateLabels": {"c": "d"}, "removeLabels": ["a"]},
    )["update"]
    where = {"name": "prod", "nodegroupName": "h100", "updateId": update["id"]}
    until(lambda: eks.describe_update(**where)["update"]["status"] == "Successful")
    more = _running(emulator, "h100", 4)
    described = eks.describe_nodegroup(clusterName="prod", nodegroupName="h100")["nodegroup"]
    assert described["labels"] == {"c": "d"}

    # A replacement takes the index that became free.
    ec2.terminate_instances(InstanceIds=[more[1]["instanceId"]])
    until(lambda: len(instances_of(emulator, "h100")) == 3)
    replaced = _running(emulator, "h100", 4)
    assert [m["index"] for m in replaced] == [0, 1, 2, 3]
    assert replaced[1]["instanceId"] != more[1]["instanceId"]

    until(lambda: _status(emulator, "h100") == "ACTIVE")
    eks.update_nodegroup_config(
        clusterName="prod", nodegroupName="h100", scalingConfig={"desiredSize": 1}
    )
    assert [m["index"] for m in _running(emulator, "h100", 1)] == [0]
    until(lambda: _status(emulator, "h100") == "ACTIVE")
    delete_nodegroup(emulator, "h100")
    assert instances_of(emulator, "h100") == []
    groups = emulator.client("autoscaling").describe_auto_scaling_groups()
    assert groups["AutoScalingGroups"] == []
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    assert not [t for t in templates if t["LaunchTemplateName"].startswith("eks-")]
    assert "arn:aws:iam::123456789012:role/node" not in (
        eks.list_access_entries(clusterName="prod")["accessEntries"]
    )
    with refusal("ResourceNotFoundException", "No node group found for name: h100."):
        eks.describe_nodegroup(clusterName="prod", nodegroupName="h100")


REFUSED_TEMPLATES = [
    (
        "profile",
        {"IamInstanceProfile": {"Name": "x"}},
        "InvalidRequestException",
        "instance profile",
    ),
    (
        "subnet",
        {"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-1"}]},
        "InvalidRequestException",
        "subnet",
    ),
    (
        "spot",
        {"InstanceMarketOptions": {"MarketType": "spot"}},
        "InvalidParameterException",
        "Instance market options are not supported",
    ),
    (
        "shutdown",
        {"InstanceInitiatedShutdownBehavior": "terminate"},
        "InvalidParameterException",
        "shutdown behavior",
    ),
    (
        "hibernation",
        {"HibernationOptions": {"Configured": True}},
        "InvalidParameterException",
        "Hibernation",
    ),
    ("type", {"InstanceType": "p9.huge"}, "InvalidParameterException", "p9.huge"),
    ("image", {"ImageId": "ami-00000000000000000"}, "InvalidParameterException", "does not exist"),
    (
        "block",
        {"InstanceMarketOptions": {"MarketType": "capacity-block"}},
        "InvalidParameterException",
        "CAPACITY_BLOCK",
    ),
]


@pytest.mark.parametrize(
    ("name", "data", "code", "text"), REFUSED_TEMPLATES, ids=[case[0] for case in REFUSED_TEMPLATES]
)
def test_templates_that_eks_refuses(
    emulator: Emulator, prod: Prod, name: str, data: dict[str, Any], code: str, text: str
) -> None:
    reference = template(emulator, f"refused-{name}", **data)
    with refusal(code, text):
        _group(emulator, prod[1], "refused", launchTemplate=reference)
    assert "refused" not in emulator.client("eks").list_nodegroups(clusterName="prod")["nodegroups"]


REFUSED_REQUESTS = [
    ({"diskSize": 50}, "InvalidParameterException", "Disk size"),
    ({"remoteAccess": {"ec2SshKey": "k"}}, "InvalidParameterException", "Remote access"),
    ({"instanceTypes": ["p5.48xlarge"]}, "InvalidRequestException", "instance types"),
    ({"amiType": "AL2023_x86_64_NVIDIA"}, "InvalidParameterException", "AMI Type"),
    ({"version": "1.34"}, "InvalidParameterException", "kubernetes version"),
    ({"releaseVersion": "1.34.2-1"}, "InvalidParameterException", "release version"),
    (
        {"scalingConfig": {"minSize": 3, "maxSize": 4, "desiredSize": 2}},
        "InvalidParameterException",
        "Minimum capacity 3",
    ),
    (
        {"scalingConfig": {"minSize": 1, "maxSize": 2, "desiredSize": 3}},
        "InvalidParameterException",
        "desired capacity 3",
    ),
    ({"subnets": ["subnet-0"]}, "InvalidParameterException", "does not exist"),
    (
        {"nodeRole": "arn:aws:iam::123456789012:role/none"},
        "InvalidParameterException",
        "cannot be found",
    ),
]


@pytest.mark.parametrize(("change", "code", "text"), REFUSED_REQUESTS)
def test_requests_that_eks_refuses(
    emulator: Emulator, prod: Prod, change: dict[str, Any], code: str, text: str
) -> None:
    name = f"good-{abs(hash(text))}"
    reference = template(emulator, name)
    with refusal(code, text):
        _group(emulator, prod[1], "refused", **{"launchTemplate": reference, **change})


def test_a_role_that_ec2_may_not_assume(emulator: Emulator, prod: Prod) -> None:
    wrong = role(emulator, "for-eks-only", "eks.amazonaws.com")
    with refusal("InvalidParameterException", "ec2.amazonaws.com"):
        _group(emulator, prod[1], "refused", nodeRole=wrong)


def test_missing_templates_and_versions(emulator: Emulator, prod: Prod) -> None:
    with refusal("InvalidRequestException", "could not be found"):
        _group(emulator, prod[1], "refused", launchTemplate={"id": "lt-00000000000000000"})
    reference = template(emulator, "one-version")
    with refusal("InvalidRequestException", "version"):
        _group(emulator, prod[1], "refused", launchTemplate={**reference, "version": "7"})


def test_without_an_image_eks_chooses_and_merges(emulator: Emulator, prod: Prod) -> None:
    mime = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="B"\n\n' + (
        "--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n\n--B--\n"
    )
    reference = template(
        emulator, "no-image", ImageId=None, UserData=base64.b64encode(mime.encode()).decode()
    )
    _group(
        emulator, prod[1], "merged", 1, launchTemplate=reference, amiType="AL2023_x86_64_NVIDIA"
    )
    member = _running(emulator, "merged", 1)[0]
    assert member["imageId"] == image(emulator, "nvidia")
    text = base64.b64decode(member["userData"]).decode()
    assert "text/x-shellscript" in text
    assert "application/node.eks.aws" in text
    assert '"name": "prod"' in text
    delete_nodegroup(emulator, "merged")
    plain = template(emulator, "not-mime", ImageId=None, UserData="cGxhaW4=")
    with refusal("InvalidRequestException", "MIME"):
        _group(emulator, prod[1], "refused", launchTemplate=plain)


def test_a_launch_that_fails_is_a_health_issue_and_an_activity(
    emulator: Emulator, prod: Prod
) -> None:
    rule = {
        "service": "autoscaling", "op": "Launch", "action": "error",
        "code": "InsufficientInstanceCapacity", "message": "no p5 here",
        "times": len(prod[1].subnets),
    }  # fmt: skip
    emulator.control("POST", "rules", rule)
    _group(emulator, prod[1], "scarce", 1, launchTemplate=template(emulator, "scarce"))
    eks, autoscaling = emulator.client("eks"), emulator.client("autoscaling")

    def issues() -> Any:
        found = eks.describe_nodegroup(clusterName="prod", nodegroupName="scarce")["nodegroup"]
        return found["health"]["issues"]

    issue = until(issues)[0]
    assert issue["code"] == "AsgInstanceLaunchFailures"
    assert "InsufficientInstanceCapacity" in issue["message"]
    found = autoscaling.describe_scaling_activities(AutoScalingGroupName=issue["resourceIds"][0])
    activity = found["Activities"][-1]
    assert (activity["StatusCode"], "no p5 here" in activity["StatusMessage"]) == ("Failed", True)
    # Every zone was tried, and the group tries again by itself.
    failed = [a for a in found["Activities"] if a["StatusCode"] == "Failed"]
    zones = {json.loads(a["Details"])["Availability Zone"] for a in failed}
    assert len(zones) == len(prod[1].subnets)
    _running(emulator, "scarce", 1)
    assert issues() == []
    delete_nodegroup(emulator, "scarce")


def test_nodes_that_never_join_fail_the_group(tmp_path: Any) -> None:
    emulator = start(tmp_path, 0.002, "--join-timeout", "0.5")
    net = network(emulator)
    cluster(emulator, net)
    _group(emulator, net, "silent", 2, launchTemplate=template(emulator, "silent"))
    members = _running(emulator, "silent", 2)
    _join(emulator, members[:1])
    until(lambda: _status(emulator, "silent") == "CREATE_FAILED")
    found = emulator.client("eks").describe_nodegroup(clusterName="prod", nodegroupName="silent")
    issue = found["nodegroup"]["health"]["issues"][0]
    assert issue["code"] == "NodeCreationFailure"
    assert issue["resourceIds"] == [members[1]["instanceId"]]
    with refusal("InvalidRequestException"):
        emulator.client("eks").update_nodegroup_config(
            clusterName="prod", nodegroupName="silent", scalingConfig={"desiredSize": 1}
        )
    delete_nodegroup(emulator, "silent")
    emulator.close()


def test_a_role_that_goes_before_the_launch(tmp_path: Any) -> None:
    emulator = start(tmp_path, 0.01)
    net = network(emulator)
    cluster(emulator, net)
    _group(emulator, net, "orphan", 1, launchTemplate=template(emulator, "orphan"))
    emulator.client("iam").delete_role(RoleName="node")
    until(lambda: _status(emulator, "orphan") == "CREATE_FAILED")
    found = emulator.client("eks").describe_nodegroup(clusterName="prod", nodegroupName="orphan")
    issues = found["nodegroup"]["health"]["issues"]
    assert [issue["code"] for issue in issues] == ["IamNodeRoleNotFound"]
    delete_nodegroup(emulator, "orphan")
    emulator.close()


def test_a_node_group_and_its_tags(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    reference = template(emulator, "tagging")
    made = _group(emulator, prod[1], "tagging", 0, launchTemplate=reference, tags={"a": "b"})
    until(lambda: _status(emulator, "tagging") == "ACTIVE")
    eks.tag_resource(resourceArn=made["nodegroupArn"], tags={"c": "d"})
    eks.untag_resource(resourceArn=made["nodegroupArn"], tagKeys=["a"])
    assert eks.list_tags_for_resource(resourceArn=made["nodegroupArn"])["tags"] == {"c": "d"}
    with refusal("ResourceNotFoundException"):
        eks.tag_resource(resourceArn=made["nodegroupArn"] + "x", tags={"c": "d"})
    delete_nodegroup(emulator, "tagging")
