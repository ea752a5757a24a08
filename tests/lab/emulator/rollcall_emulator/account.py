"""What the account holds, in words that are the same in every life of a fleet: names in place of ids.

Two uses: `GET /_control/account`, which a test compares with another life's, and the name of the
thing that a call is about, by which fault rules pick one call out of a run.
"""

import re
from typing import Any

from .world import World

# Parameters that hold the id of an EC2 resource, in the order in which they are named.
IDS = (
    "RouteTableId", "SubnetId", "InternetGatewayId", "GatewayId", "NatGatewayId", "AllocationId",
    "VpcId", "GroupId", "NetworkInterfaceId", "LaunchTemplateId", "AssociationId", "InstanceId.1",
)  # fmt: skip
# Parameters that are names already.
NAMES = (
    "LaunchTemplateName", "RoleName", "ServiceName", "GroupName", "InstanceProfileName", "PolicyArn", "PolicyName", "Bucket",
    "Key", "name", "clusterName", "nodegroupName", "addonName", "principalArn", "policyArn", "Name",
)  # fmt: skip

# What AWS makes up in names of its own: UUIDs, ids in descriptions, the numbers of EKS's groups.
RANDOM = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=-)[0-9a-f]{17}|(?<=-)[0-9]{10}(?= |$)"
)


def resource_of(world: World, params: dict[str, Any]) -> str:
    """What a call is about: the name that it gives, else the names of those that it speaks of."""
    for number in range(1, 20):
        if params.get(f"TagSpecification.1.Tag.{number}.Key") == "Name":
            return str(params[f"TagSpecification.1.Tag.{number}.Value"])
    found = [_last_word(str(params[key])) for key in NAMES if params.get(key)]
    found += [_named(world, str(params[key])) for key in IDS if params.get(key)]
    return " ".join(found)


def _last_word(path: str) -> str:
    """The last part of a path or an ARN; of numbered things, what they are the nth of."""
    return next(part for part in reversed(path.split("/")) if not part.isdigit() or part == path)


def _named(world: World, identifier: str) -> str:
    """The Name tag of an EC2 resource; without one, its kind."""
    if identifier.startswith("rtbassoc-"):
        for table in world.ec2.route_tables.values():
            for one in table.associations:
                if one["RouteTableAssociationId"] == identifier:
                    ends = [table.id, one.get("SubnetId", "main")]
                    return " ".join(_named(world, end) for end in ends)
    tags = world.ec2.tags.get(identifier, {})
    return str(tags.get("Name") or identifier.split("-", 1)[0])


def account(world: World) -> list[str]:
    """Everything in the account, a line each, sorted."""
    lines = [*_network(world), *_compute(world), *_identity(world), *_eks(world), *_stored(world)]
    return sorted(RANDOM.sub("*", line) for line in lines)


def _network(world: World) -> list[str]:
    ec2 = world.ec2

    def name(identifier: str | None) -> str:
        return _named(world, identifier) if identifier else "none"

    lines = [f"vpc {name(v.id)} {v.cidr_block}" for v in ec2.vpcs.values()]
    for zone in ec2.subnets.values():
        for s in zone.values():
            lines.append(f"subnet {name(s.id)} {s.cidr_block} {s.availability_zone}")
    for gateway in ec2.internet_gateways.values():
        vpc = gateway.vpc.id if gateway.vpc else None
        lines.append(f"internet-gateway {name(gateway.id)} on {name(vpc)}")
    for table in ec2.route_tables.values():
        routes = [
            f"{r.destination_cidr_block}->{name((r.gateway or r.nat_gateway).id)}"
            for r in table.routes
            if r.gateway or r.nat_gateway
        ]
        used = sorted(name(one["SubnetId"]) for one in table.associations if "SubnetId" in one)
        lines.append(f"route-table {name(table.id)} {sorted(routes)} {used}")
    for nat in ec2.nat_gateways.values():
        if nat.state != "deleted":
            lines.append(f"nat-gateway {name(nat.id)} {nat.state} in {name(nat.subnet_id)}")
    lines += [f"address {name(a.allocation_id)}" for a in ec2.addresses]
    for groups in ec2.groups.values():
        lines += [f"security-group {g.name} in {name(g.vpc_id)}" for g in groups.values()]
    for nic in ec2.enis.values():
        # In which zone an instance is launched is the Auto Scaling group's choice.
        place = "some zone" if nic.instance else name(nic.subnet.id)
        lines.append(f"interface {nic.description} in {place}")
    lines += [f"endpoint {e.service_name} in {name(e.vpc_id)}" for e in ec2.vpc_end_points.values()]
    return lines


def _compute(world: World) -> list[str]:
    ec2, lines = world.ec2, []
    for template in ec2.launch_templates.values():
        lines.append(f"launch-template {template.name} of {len(template.versions)} versions")
    for reservation in ec2.reservations.values():
        for instance in reservation.instances:
            tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
            if instance.state not in ("shutting-down", "terminated"):
                kind = instance.instance_type
                lines.append(f"instance {tags.get('Name')} {kind} {instance.state}")
    lines += [f"key-pair {name}" for name in ec2.key_pairs]
    # What AWS owns is there in every life.
    of_aws = {i.ebs_snapshot.id for i in ec2.amis.values() if i.owner_id != ec2.account_id}
    own = [image for image in ec2.amis.values() if image.owner_id == ec2.account_id]
    lines += [f"image {image.name} {image.state}" for image in own]
    lines += [
        f"snapshot {_named(world, s.id)} {s.status}" for s in ec2.snapshots.values() if s.id not in of_aws
    ]
    lines += [f"placement-group {name}" for name in world.placement.groups]
    lines += [f"volume {v.size} {v.status}" for v in ec2.volumes.values()]
    lines += [f"scaling-group {name}" for name in world.autoscaling.autoscaling_groups]
    return lines


def _identity(world: World) -> list[str]:
    lines = []
    for role in world.iam.roles.values():
        attached = sorted(arn.rsplit("/", 1)[-1] for arn in role.managed_policies)
        lines.append(f"role {role.name} {attached} {sorted(role.policies)}")
    for profile in world.iam.instance_profiles.values():
        lines.append(f"instance-profile of {[role.name for role in profile.roles]}")
    return lines


def _eks(world: World) -> list[str]:
    lines = []
    for cluster in world.eks.clusters.values():
        lines.append(f"cluster {cluster.name} {cluster.status} {cluster.version}")
        lines += [f"addon {a.name}" for a in cluster.addons.values()]
        for entry in cluster.entries.values():
            lines.append(f"access-entry {entry.principal_arn} {entry.type} {list(entry.policies)}")
        for group in cluster.nodegroups.values():
            lines.append(f"node-group {group.name} {group.status} {group.scaling}")
    return lines


def _stored(world: World) -> list[str]:
    from moto.s3.models import s3_backends

    lines = []
    for backend in s3_backends[world.ssm.account_id].values():
        for bucket in backend.buckets.values():
            lines.append(f"bucket {bucket.name}")
            lines += [f"object {bucket.name}/{key}" for key in bucket.keys]
    names = [name for name in world.ssm._parameters if not name.startswith("/aws/")]
    return lines + [f"parameter {n}" for n in names if world.ssm._parameters[n]]
