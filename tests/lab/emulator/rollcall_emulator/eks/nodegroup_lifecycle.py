"""A node group's life in EC2: EKS's own template, instance profile and Auto Scaling group; ACTIVE
when all of its instances are Ready nodes, CREATE_FAILED when they are not in time."""

from typing import Any

from .. import autoscaling, durations
from . import access, errors
from .model import Cluster, Nodegroup
from .store import Store


def start(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    """Launches after EKS's own preparation time."""
    store.world.clock.after(durations.NODEGROUP_LAUNCH, lambda: _launch(store, cluster, group))
    store.world.clock.after_real(
        store.world.settings.join_timeout, lambda: _give_up(store, cluster, group)
    )


def _launch(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    if group.status != "CREATING":
        return
    name = f"eks-{group.resource_suffix}"
    world = store.world
    role = next((r for r in world.iam.roles.values() if r.arn == group.node_role), None)
    if role is None:
        _fail(group, "IamNodeRoleNotFound", f"The role {group.node_role} cannot be found", [])
        return
    world.iam.create_instance_profile(name, "/", [], [])
    world.iam.add_role_to_instance_profile(name, role.name)
    # EKS waits until its own profile has propagated before it launches.
    profile = world.iam.instance_profiles[name]
    profile.create_date = group.created_at
    data = launch_data(cluster, group, group.template_data)
    tags = {"eks:cluster-name": cluster.name, "eks:nodegroup-name": group.name}
    template = world.ec2.create_launch_template(name, "", data, {"launch-template": tags})
    group.autoscaling_group = world.autoscaling.create_auto_scaling_group(
        name=f"eks-{group.name}-{group.resource_suffix}",
        availability_zones=[],
        desired_capacity=group.scaling["desiredSize"],
        max_size=group.scaling["maxSize"],
        min_size=group.scaling["minSize"],
        launch_config_name="",
        launch_template={"LaunchTemplateId": template.id, "Version": "1"},
        vpc_zone_identifier=",".join(group.subnets),
        default_cooldown=None,
        health_check_period=15,
        health_check_type="EC2",
        load_balancers=[],
        target_group_arns=[],
        placement_group=None,
        termination_policies=["AllocationStrategy", "OldestLaunchTemplate", "OldestInstance"],
        tags=_group_tags(cluster, group),
    )
    reconsider(store, cluster, group)


def launch_data(cluster: Cluster, group: Nodegroup, asked: dict[str, Any]) -> dict[str, Any]:
    """What EKS's own template holds: what was asked, its profile, group and tags."""
    profile = {"Name": f"eks-{group.resource_suffix}"}
    data = {**asked, "IamInstanceProfile": profile}
    if not data.get("SecurityGroupIds") and not data.get("NetworkInterfaces"):
        data["SecurityGroupIds"] = [cluster.vpc["clusterSecurityGroupId"]]
    data["TagSpecifications"] = _with_eks_tags(cluster, group, data.get("TagSpecifications") or [])
    return data


def _group_tags(cluster: Cluster, group: Nodegroup) -> list[dict[str, Any]]:
    tags = {
        "eks:cluster-name": cluster.name,
        "eks:nodegroup-name": group.name,
        f"kubernetes.io/cluster/{cluster.name}": "owned",
        "k8s.io/cluster-autoscaler/enabled": "true",
        f"k8s.io/cluster-autoscaler/{cluster.name}": "owned",
    }
    return [{"Key": k, "Value": v, "PropagateAtLaunch": True} for k, v in tags.items()]


def _with_eks_tags(
    cluster: Cluster, group: Nodegroup, specifications: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """EKS adds its two tags to instances and volumes."""
    ours = [
        {"Key": "eks:cluster-name", "Value": cluster.name},
        {"Key": "eks:nodegroup-name", "Value": group.name},
    ]
    merged = {spec["ResourceType"]: list(spec.get("Tags", [])) for spec in specifications}
    for kind in ("instance", "volume"):
        merged[kind] = [*merged.get(kind, []), *ours]
    return [{"ResourceType": kind, "Tags": tags} for kind, tags in merged.items()]


def instances(group: Nodegroup) -> list[Any]:
    """The group's instances that count as capacity."""
    return autoscaling.living(group.autoscaling_group) if group.autoscaling_group else []


def reconsider(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    """Updates health from the launches, and status from the nodes that the lab reports Ready."""
    if group.autoscaling_group is None or group.status not in ("CREATING", "ACTIVE", "DEGRADED"):
        return
    living = instances(group)
    short = len(living) < group.scaling["desiredSize"]
    failed = autoscaling.failures(group.autoscaling_group) if short else []
    group.health = [_launch_issue(group, failed[0])] if failed else []
    if group.status == "CREATING":
        ready = all(store.world.registered.get(instance.id) for instance in living)
        if ready and not short:
            group.status = "ACTIVE"
    else:
        group.status = "DEGRADED" if failed else "ACTIVE"


def _launch_issue(group: Nodegroup, activity: dict[str, Any]) -> dict[str, Any]:
    return {
        "code": "AsgInstanceLaunchFailures",
        "message": f"Could not launch On-Demand Instances. {activity['Code']} - "
        f"{activity['StatusMessage']}",
        "resourceIds": [group.autoscaling_group.name],
    }


def _give_up(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    reconsider(store, cluster, group)
    if group.status != "CREATING":
        return
    missing = [i.id for i in instances(group) if not store.world.registered.get(i.id)]
    if group.health and not missing:
        group.status = "CREATE_FAILED"  # What could not be launched is named already.
        return
    text = "Instances failed to join the kubernetes cluster"
    _fail(group, "NodeCreationFailure", text, missing)


def _fail(group: Nodegroup, code: str, message: str, resources: list[str]) -> None:
    group.status = "CREATE_FAILED"
    group.health.append({"code": code, "message": message, "resourceIds": resources})


def check_updatable(cluster: Cluster, group: Nodegroup) -> None:
    """Refuses a change of a group that is in the middle of another, or broken."""
    where = {"clusterName": cluster.name, "nodegroupName": group.name}
    if group.status in ("UPDATING", "CREATING"):
        raise errors.in_use(
            f"Nodegroup cannot be updated as it is currently being {group.status}", **where
        )
    if group.status not in ("ACTIVE", "DEGRADED"):
        raise errors.invalid_request(
            f"Nodegroup cannot be updated as it is currently not in Active State: {group.status}",
            **where,
        )


def scale(group: Nodegroup) -> None:
    """Hands a new size to the Auto Scaling group."""
    target = group.autoscaling_group
    if target is None:
        return
    target.min_size, target.max_size = group.scaling["minSize"], group.scaling["maxSize"]
    target.set_desired_capacity(group.scaling["desiredSize"])


def stop(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    """Terminates the instances; the rest goes when they are gone."""
    group.status = "DELETING"
    waiting = []
    if group.autoscaling_group is not None:
        waiting = [state.instance for state in group.autoscaling_group.instance_states]
        group.autoscaling_group.min_size = 0
        group.autoscaling_group.set_desired_capacity(0)

    def check() -> None:
        if any(instance.state != "terminated" for instance in waiting):
            store.world.clock.after(durations.NODEGROUP_SCALE_STEP, check)
        else:
            _remove(store, cluster, group)

    store.world.clock.after(durations.NODEGROUP_DELETE, check)


def _remove(store: Store, cluster: Cluster, group: Nodegroup) -> None:
    world = store.world
    name = f"eks-{group.resource_suffix}"
    if group.autoscaling_group is not None:
        world.autoscaling.autoscaling_groups.pop(group.autoscaling_group.name, None)
        if name in world.ec2.launch_template_name_to_ids:
            world.ec2.delete_launch_template(name, None)
        profile = world.iam.instance_profiles.pop(name, None)
        if profile is not None:
            profile.roles.clear()
    cluster.nodegroups.pop(group.name, None)
    access.forget_node_entry(cluster, group.node_role)


