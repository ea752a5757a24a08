"""What most tests stand on: a VPC, roles, a cluster, launch templates."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from conftest import Emulator, until


def refusal(code: str, text: str = "") -> Any:
    """Expects a modelled AWS error with this code, and this text in its message."""

    class Expectation:
        def __enter__(self) -> None:
            return None

        def __exit__(self, _kind: Any, error: Any, _trace: Any) -> bool:
            assert isinstance(error, ClientError), f"expected {code}, got {error!r}"
            found = error.response["Error"]
            assert found["Code"] == code, found
            assert text in found["Message"], found
            return True

    return Expectation()


def trust(service: str) -> str:
    """A trust policy for an AWS service."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": service},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
    )


@dataclass
class Network:
    """A VPC with a subnet in two zones."""

    vpc: str
    subnets: list[str]


def network(emulator: Emulator, cidr: str = "10.0.0.0/16") -> Network:
    """Makes a VPC with two subnets."""
    ec2 = emulator.client("ec2")
    vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    prefix = cidr.rsplit(".", 2)[0]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"{prefix}.{index}.0/24", AvailabilityZone=f"us-east-1{zone}"
        )["Subnet"]["SubnetId"]
        for index, zone in enumerate("ab")
    ]
    return Network(vpc, subnets)


def role(emulator: Emulator, name: str, service: str) -> str:
    """Makes a role, or finds it."""
    iam = emulator.client("iam")
    try:
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(service))
    except iam.exceptions.EntityAlreadyExistsException:
        made = iam.get_role(RoleName=name)
    return made["Role"]["Arn"]


def image(emulator: Emulator, variant: str = "nvidia", version: str = "1.34") -> str:
    """The EKS image of the public parameter."""
    name = (
        f"/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/x86_64/{variant}"
        "/recommended/image_id"
    )
    return emulator.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def cluster(emulator: Emulator, net: Network, name: str = "prod", **more: Any) -> dict[str, Any]:
    """Makes a cluster and waits for it."""
    eks = emulator.client("eks")
    eks.create_cluster(
        name=name,
        version="1.34",
        roleArn=role(emulator, "cluster", "eks.amazonaws.com"),
        resourcesVpcConfig={"subnetIds": net.subnets},
        accessConfig={"authenticationMode": "API"},
        **more,
    )

    def active() -> dict[str, Any] | None:
        found = eks.describe_cluster(name=name)["cluster"]
        return found if found["status"] == "ACTIVE" else None

    return until(active)


def template(emulator: Emulator, name: str, **data: Any) -> dict[str, str]:
    """Makes a launch template; the reference that CreateNodegroup wants."""
    full = {
        "ImageId": image(emulator),
        "InstanceType": "p5.48xlarge",
        "UserData": base64.b64encode(f"MIME of {name}".encode()).decode(),
        **data,
    }
    full = {key: value for key, value in full.items() if value is not None}
    made = emulator.client("ec2").create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData=full
    )["LaunchTemplate"]
    return {"id": made["LaunchTemplateId"], "version": "1"}


def instances_of(emulator: Emulator, group: str) -> list[dict[str, Any]]:
    """The living instances of a node group, by index."""
    found = [
        i
        for i in emulator.control("GET", "instances")
        if i["nodegroup"] == group and i["state"] in ("pending", "running")
    ]
    return sorted(found, key=lambda i: i["index"])


def delete_nodegroup(emulator: Emulator, name: str, cluster_name: str = "prod") -> None:
    """Deletes a node group and waits until it is gone."""
    eks = emulator.client("eks")
    eks.delete_nodegroup(clusterName=cluster_name, nodegroupName=name)
    until(lambda: name not in eks.list_nodegroups(clusterName=cluster_name)["nodegroups"])
