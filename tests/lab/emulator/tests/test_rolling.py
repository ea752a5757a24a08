"""UpdateNodegroupVersion: nodes are replaced in batches, the new ones first."""

from typing import Any

from conftest import Emulator, start, until
from scenery import cluster, delete_nodegroup, instances_of, network, refusal, role, template

VERSION = "aws:ec2launchtemplate:version"


def _made(emulator: Emulator, size: int, **more: Any) -> dict[str, str]:
    """A group `h100` of Ready nodes, and a second version of its template."""
    net = network(emulator)
    cluster(emulator, net)
    reference = template(emulator, "h100")
    emulator.client("eks").create_nodegroup(
        clusterName="prod",
        nodegroupName="h100",
        subnets=net.subnets,
        nodeRole=role(emulator, "node", "ec2.amazonaws.com"),
        scalingConfig={"minSize": 0, "maxSize": size, "desiredSize": size},
        launchTemplate=reference,
        **more,
    )
    until(lambda: len(_running(emulator)) == size)
    _join(emulator)
    until(lambda: _group(emulator)["status"] == "ACTIVE")
    ec2 = emulator.client("ec2")
    data = ec2.describe_launch_template_versions(LaunchTemplateId=reference["id"])
    data = data["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    ec2.create_launch_template_version(
        LaunchTemplateId=reference["id"],
        LaunchTemplateData={**data, "InstanceType": "g5.12xlarge"},
    )
    return {**reference, "version": "2"}


def _running(emulator: Emulator) -> list[dict[str, Any]]:
    return [i for i in instances_of(emulator, "h100") if i["state"] == "running"]


def _join(emulator: Emulator) -> None:
    registered = {i["instanceId"]: True for i in _running(emulator)}
    emulator.control("POST", "nodes", {"registered": registered})


def _group(emulator: Emulator) -> dict[str, Any]:
    found = emulator.client("eks").describe_nodegroup(clusterName="prod", nodegroupName="h100")
    return found["nodegroup"]


def _update(emulator: Emulator, update: str) -> dict[str, Any]:
    found = emulator.client("eks").describe_update(
        name="prod", nodegroupName="h100", updateId=update
    )
    return found["update"]


def test_nodes_are_replaced_in_batches_and_the_new_ones_come_first(tmp_path: Any) -> None:
    emulator = start(tmp_path, 0.002)
    try:
        to = _made(emulator, 5, updateConfig={"maxUnavailable": 2})
        eks = emulator.client("eks")
        asked = {
            "clusterName": "prod", "nodegroupName": "h100", "launchTemplate": to,
            "clientRequestToken": "roll-1",
        }  # fmt: skip
        update = eks.update_nodegroup_version(**asked)["update"]
        assert eks.update_nodegroup_version(**asked)["update"]["id"] == update["id"]
        with refusal("ResourceInUseException"):
            eks.update_nodegroup_version(**{**asked, "clientRequestToken": "roll-2"})
        with refusal("ResourceInUseException"):
            eks.delete_nodegroup(clusterName="prod", nodegroupName="h100")
        seen: list[tuple[int, int]] = []

        def rolled() -> bool:
            members = instances_of(emulator, "h100")
            new = sum(1 for member in members if member["type"] == "g5.12xlarge")
            if not seen or seen[-1] != (len(members) - new, new):
                seen.append((len(members) - new, new))
            _join(emulator)
            return bool(_update(emulator, update["id"])["status"] == "Successful")

        until(rolled, 60)
        assert all(5 <= old + new <= 7 for old, new in seen), seen
        assert (5, 2) in seen and seen[-1] == (0, 5), seen
        group = _group(emulator)
        assert group["status"] == "ACTIVE" and group["launchTemplate"]["version"] == "2"
        delete_nodegroup(emulator, "h100")
    finally:
        emulator.close()


def test_a_roll_whose_nodes_do_not_join_ends_with_the_first_batch(tmp_path: Any) -> None:
    emulator = start(tmp_path, 0.002, "--join-timeout", "10")
    try:
        to = _made(emulator, 3)
        before = {i["instanceId"] for i in _running(emulator)}
        eks = emulator.client("eks")
        other = template(emulator, "other")
        with refusal("InvalidParameterException", "another launch template"):
            eks.update_nodegroup_version(
                clusterName="prod", nodegroupName="h100", launchTemplate=other
            )
        with refusal("InvalidParameterException", "custom AMI"):
            eks.update_nodegroup_version(
                clusterName="prod", nodegroupName="h100", launchTemplate=to, version="1.34"
            )
        update = eks.update_nodegroup_version(
            clusterName="prod", nodegroupName="h100", launchTemplate=to
        )["update"]
        until(lambda: _update(emulator, update["id"])["status"] == "Failed", 60)
        errors = _update(emulator, update["id"])["errors"]
        assert [error["errorCode"] for error in errors] == ["NodeCreationFailure"]
        group = _group(emulator)
        assert group["status"] == "ACTIVE" and group["launchTemplate"]["version"] == "1"
        left = {i["instanceId"] for i in instances_of(emulator, "h100")}
        assert len(left) == 3 and before >= left, (before, left)
        delete_nodegroup(emulator, "h100")
    finally:
        emulator.close()
