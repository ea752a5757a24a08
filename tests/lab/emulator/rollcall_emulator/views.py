"""What the control API shows of the account: instances and EKS, as plain JSON."""

from typing import Any

from .world import World


def instances(world: World) -> list[dict[str, Any]]:
    """Every instance, terminated ones included, in the order of their launch."""
    reservations = list(world.ec2.reservations.values())
    return [_instance(item) for reservation in reservations for item in reservation.instances]


def _instance(instance: Any) -> dict[str, Any]:
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    subnet = next((nic.subnet for nic in instance.nics.values()), None)
    # Kept at launch: the roles of a terminated instance's profile may be gone by now.
    role, profile = getattr(instance, "rollcall_profile", (None, None))
    return {
        "instanceId": instance.id,
        "type": instance.instance_type,
        "state": instance.state,
        "zone": instance.placement.zone,
        "zoneId": subnet._availability_zone.zone_id if subnet else None,
        "subnetId": subnet.id if subnet else None,
        "vpcId": subnet.vpc_id if subnet else None,
        "privateIp": instance.private_ip,
        "privateDnsName": instance.private_dns_name,
        "mac": instance.nics[0].mac_address if 0 in instance.nics else None,
        "imageId": instance.image_id,
        "imageName": getattr(instance.ec2_backend.amis.get(instance.image_id), "name", None) or "",
        "launchTime": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "userData": str(instance.user_data) if instance.user_data else "",
        "roleArn": role,
        "instanceProfileArn": profile,
        "securityGroups": [group.id for group in instance.security_groups],
        "cluster": tags.get("eks:cluster-name"),
        "nodegroup": tags.get("eks:nodegroup-name"),
        "index": getattr(instance, "rollcall_index", 0),
        "publicKey": getattr(instance, "rollcall_public_key", None),
        "reboots": getattr(instance, "rollcall_reboots", 0),
        "metadataOptions": {
            "httpTokens": instance.metadata_options.http_tokens,
            "httpPutResponseHopLimit": instance.metadata_options.http_put_response_hop_limit,
        },
        "tags": tags,
    }


def eks(world: World) -> dict[str, Any]:
    """Clusters with their add-ons, access entries and node groups."""
    from .eks import addons, nodegroup_lifecycle

    store = world.eks
    clusters = []
    for cluster in list(store.clusters.values()):
        groups = []
        for group in list(cluster.nodegroups.values()):
            members = nodegroup_lifecycle.instances(group)
            groups.append(
                {
                    "name": group.name,
                    "status": group.status,
                    "nodeRole": group.node_role,
                    "desired": group.scaling["desiredSize"],
                    "instances": [instance.id for instance in members],
                }
            )
        clusters.append(
            {
                "name": cluster.name,
                "status": cluster.status,
                "version": cluster.version,
                "createdAt": cluster.created_at.isoformat(),
                "serviceCidr": cluster.network["serviceIpv4Cidr"],
                "vpcId": cluster.vpc["vpcId"],
                "addons": [
                    {"name": a.name, "version": a.version, "status": addons.status(store, a)}
                    for a in list(cluster.addons.values())
                ],
                "accessEntries": [
                    {
                        "principalArn": entry.principal_arn,
                        "type": entry.type,
                        "username": entry.username,
                        "groups": entry.groups,
                        "policies": list(entry.policies),
                    }
                    for entry in list(cluster.entries.values())
                ],
                "nodegroups": groups,
            }
        )
    return {"clusters": clusters}
