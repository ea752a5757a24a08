"""What a node may do is exactly what its role's policies say."""

import json
from typing import Any

import pytest
from conftest import Emulator
from scenery import refusal, role

INSTANCE = "i-0aaaaaaaaaaaaaaa7"
ME = f"arn:aws:ec2:us-east-1:123456789012:instance/{INSTANCE}"
REPORTS = "arn:aws:ssm:us-east-1:123456789012:parameter/rollcall/prod/*"
MYSELF = "${ec2:SourceInstanceARN}"
RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ssm:PutParameter", "ssm:AddTagsToResource"],
            "Resource": REPORTS,
            "Condition": {
                "StringEquals": {"aws:RequestTag/rollcall-instance": MYSELF},
                "StringEqualsIfExists": {"aws:ResourceTag/rollcall-instance": MYSELF},
                "Null": {"ec2:SourceInstanceARN": "false"},
            },
        },
        {
            "Effect": "Allow",
            "Action": ["ssm:PutParameter", "ssm:DeleteParameter"],
            "Resource": REPORTS,
            "Condition": {"StringEquals": {"aws:ResourceTag/rollcall-instance": MYSELF}},
        },
        {
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": "arn:aws:ec2:us-east-1:123456789012:instance/*",
            "Condition": {
                "StringEquals": {"aws:ARN": MYSELF},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["rollcall:join"]},
            },
        },
        {
            "Effect": "Allow",
            "Action": ["eks:DescribeCluster", "eks:DescribeAddon"],
            "Resource": [
                "arn:aws:eks:us-east-1:123456789012:cluster/prod",
                "arn:aws:eks:us-east-1:123456789012:addon/prod/*",
            ],
        },
        {"Effect": "Allow", "Action": "ec2:DescribeSubnets", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::rollcall-rights/agent/mine",
        },
    ],
}


@pytest.fixture(scope="module")
def node(shared: Emulator) -> dict[str, str]:
    """A session of a node role with the product's rights."""
    arn = role(shared, "rights", "ec2.amazonaws.com")
    shared.client("iam").put_role_policy(
        RoleName="rights", PolicyName="node", PolicyDocument=json.dumps(RIGHTS)
    )
    answer = shared.client("sts").assume_role(RoleArn=arn, RoleSessionName=INSTANCE)
    return answer["Credentials"]


def test_a_node_writes_its_own_report_only(emulator: Emulator, node: dict[str, str]) -> None:
    ssm = emulator.client("ssm", node)
    mine = [{"Key": "rollcall-instance", "Value": ME}]
    name = f"/rollcall/prod/h100/{INSTANCE}"
    with refusal("AccessDeniedException", "ssm:PutParameter"):
        ssm.put_parameter(Name=name, Value="{}", Type="String")
    with refusal("AccessDeniedException"):
        ssm.put_parameter(Name="/elsewhere/x", Value="{}", Type="String", Tags=mine)
    ssm.put_parameter(Name=name, Value="{}", Type="String", Tags=mine)
    ssm.put_parameter(Name=name, Value="{1}", Type="String", Overwrite=True)
    with refusal("AccessDeniedException", "ssm:GetParameter"):
        ssm.get_parameter(Name=name)
    other = "/rollcall/prod/h100/i-0other"
    emulator.client("ssm").put_parameter(
        Name=other,
        Value="{}",
        Type="String",
        Tags=[{"Key": "rollcall-instance", "Value": ME + "0"}],
    )
    for forged in (
        lambda: ssm.put_parameter(Name=other, Value="{}", Overwrite=True),
        lambda: ssm.delete_parameter(Name=other),
        lambda: ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=other, Tags=mine),
    ):
        with refusal("AccessDeniedException"):
            forged()
    ssm.delete_parameter(Name=name)


def test_a_node_tags_itself_only(emulator: Emulator, node: dict[str, str]) -> None:
    ec2 = emulator.client("ec2", node)
    join = [{"Key": "rollcall:join", "Value": "failed GpuCountShort"}]
    with refusal("UnauthorizedOperation"):
        ec2.create_tags(Resources=["i-0bbbbbbbbbbbbbbb7"], Tags=join)
    with refusal("UnauthorizedOperation"):
        ec2.create_tags(Resources=[INSTANCE], Tags=[{"Key": "Name", "Value": "x"}])
    # Its own tag passes the door; that this instance was never launched is EC2's own matter.
    try:
        ec2.create_tags(Resources=[INSTANCE], Tags=join)
    except ec2.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] != "UnauthorizedOperation"


def test_what_a_node_reads(emulator: Emulator, node: dict[str, str], prod: Any) -> None:
    eks, ec2 = emulator.client("eks", node), emulator.client("ec2", node)
    assert eks.describe_cluster(name="prod")["cluster"]["status"] == "ACTIVE"
    with refusal("AccessDeniedException"):
        eks.describe_cluster(name="other")
    with refusal("AccessDeniedException"):
        eks.list_nodegroups(clusterName="prod")
    with refusal("ResourceNotFoundException"):
        eks.describe_addon(clusterName="prod", addonName="vpc-cni")
    ec2.describe_subnets()
    with refusal("UnauthorizedOperation"):
        ec2.describe_instances()
    emulator.client("sts", node).get_caller_identity()


def test_a_node_fetches_one_object(emulator: Emulator, node: dict[str, str]) -> None:
    owner, s3 = emulator.client("s3"), emulator.client("s3", node)
    owner.create_bucket(Bucket="rollcall-rights")
    for key in ("agent/mine", "agent/other"):
        owner.put_object(Bucket="rollcall-rights", Key=key, Body=b"x")
    assert s3.get_object(Bucket="rollcall-rights", Key="agent/mine")["Body"].read() == b"x"
    with refusal("AccessDenied"):
        s3.get_object(Bucket="rollcall-rights", Key="agent/other")
    with refusal("AccessDenied"):
        s3.list_objects_v2(Bucket="rollcall-rights")
    with refusal("AccessDenied"):
        s3.put_object(Bucket="rollcall-rights", Key="agent/mine", Body=b"y")


def test_managed_policies_count(emulator: Emulator) -> None:
    arn = role(emulator, "managed", "ec2.amazonaws.com")
    answer = emulator.client("sts").assume_role(RoleArn=arn, RoleSessionName="i-0c")
    ec2 = emulator.client("ec2", answer["Credentials"])
    with refusal("UnauthorizedOperation"):
        ec2.describe_instances()
    emulator.client("iam").attach_role_policy(
        RoleName="managed", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
    )
    ec2.describe_instances()
