"""Managed node groups: the API. What happens in EC2 is in `nodegroup_lifecycle.py`."""

import uuid
from typing import Any

from .. import durations
from ..clock import utcnow
from ..iam import trusts
from ..world import arn
from . import access, errors, launch_template, nodegroup_lifecycle
from .clusters import find_subnet
from .model import Cluster, Nodegroup
from .store import Store, page

KEPT_FIELDS = ("labels", "taints", "updateConfig", "nodeRepairConfig", "capacityType", "amiType")
DEFAULT_SCALING = {"minSize": 1, "maxSize": 2, "desiredSize": 2}


def create(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """CreateNodegroup."""
    cluster = store.active_cluster(params["clusterName"])
    errors.required(params, "nodegroupName", "subnets", "nodeRole")
    name = params["nodegroupName"]
    if name in cluster.nodegroups:
        if store.replayed("CreateNodegroup", params):
            return {"nodegroup": described(cluster, cluster.nodegroups[name])}
        raise errors.in_use(
            f"NodeGroup already exists with name {name} and cluster name {cluster.name}",
            clusterName=cluster.name,
            nodegroupName=name,
        )
    quota = store.world.limits.quotas["eks:nodegroups"]
    if len(cluster.nodegroups) >= quota:
        raise errors.limit_exceeded(f"Nodegroup limit exceeded: {quota} per cluster")
    scaling = _scaling(params.get("scalingConfig") or {}, DEFAULT_SCALING)
    _check_role(store, params["nodeRole"])
    _check_subnets(store, cluster, params["subnets"])
    template, data = launch_template.resolve(store, cluster, params)
    group = _new(cluster, params, scaling, template, data)
    cluster.nodegroups[name] = group
    access.ensure_node_entry(store, cluster, group.node_role)
    store.keep_token("CreateNodegroup", params)
    nodegroup_lifecycle.start(store, cluster, group)
    return {"nodegroup": described(cluster, group)}


def _new(
    cluster: Cluster,
    params: dict[str, Any],
    scaling: dict[str, int],
    template: dict[str, Any],
    data: dict[str, Any],
) -> Nodegroup:
    identity = str(uuid.uuid4())
    fields = {key: params.get(key) for key in KEPT_FIELDS if params.get(key) is not None}
    fields.setdefault("capacityType", "ON_DEMAND")
    fields.setdefault("updateConfig", {"maxUnavailable": 1})
    fields.setdefault("labels", {})
    custom = bool(template) and "amiType" not in fields and bool(data.get("ImageId"))
    fields.setdefault("amiType", "CUSTOM" if custom else "AL2023_x86_64_STANDARD")
    if not template:
        fields["diskSize"] = params.get("diskSize") or 20
    if not template or params.get("instanceTypes"):
        fields["instanceTypes"] = params.get("instanceTypes") or [data["InstanceType"]]
    if fields["amiType"] == "CUSTOM":
        fields["releaseVersion"] = data["ImageId"]
    fields["version"] = params.get("version") or cluster.version
    path = f"{cluster.name}/{params['nodegroupName']}/{identity}"
    return Nodegroup(
        name=params["nodegroupName"],
        arn=arn("eks", f"nodegroup/{path}"),
        node_role=params["nodeRole"],
        subnets=list(params["subnets"]),
        scaling=scaling,
        template=template,
        template_data=data,
        fields=fields,
        tags=dict(params.get("tags") or {}),
        resource_suffix=identity,
    )


def _scaling(asked: dict[str, Any], before: dict[str, int]) -> dict[str, int]:
    merged = {**before, **{k: int(v) for k, v in asked.items() if v is not None}}
    low, high, desired = merged["minSize"], merged["maxSize"], merged["desiredSize"]
    if low < 0 or high < 1:
        raise errors.invalid_parameter("The scaling config's sizes are out of range")
    if low > desired:
        raise errors.invalid_parameter(
            f"Minimum capacity {low} can't be greater than desired size {desired}"
        )
    if desired > high:
        raise errors.invalid_parameter(
            f"desired capacity {desired} can't be greater than max size {high}"
        )
    return merged


def _check_role(store: Store, role_arn: str) -> None:
    role = next((r for r in list(store.world.iam.roles.values()) if r.arn == role_arn), None)
    if role is None:
        raise errors.invalid_parameter(
            f"The role with name {role_arn.split('/')[-1]} cannot be found."
        )
    if not trusts(role, "ec2.amazonaws.com"):
        raise errors.invalid_parameter(
            "Following required service principals [ec2.amazonaws.com] were not found in the "
            f"trust relationships of nodeRole {role_arn}"
        )


def _check_subnets(store: Store, cluster: Cluster, subnets: list[str]) -> None:
    for subnet_id in subnets:
        if find_subnet(store, subnet_id).vpc_id != cluster.vpc["vpcId"]:
            raise errors.invalid_parameter(
                f"Subnets are not in the VPC of the cluster: {subnet_id}"
            )


def described(cluster: Cluster, group: Nodegroup) -> dict[str, Any]:
    """The wire form."""
    groups = [{"name": group.autoscaling_group.name}] if group.autoscaling_group else []
    answer = {
        "nodegroupName": group.name,
        "nodegroupArn": group.arn,
        "clusterName": cluster.name,
        "createdAt": group.created_at,
        "modifiedAt": group.modified_at,
        "status": group.status,
        "scalingConfig": group.scaling,
        "subnets": group.subnets,
        "nodeRole": group.node_role,
        "resources": {"autoScalingGroups": groups},
        "health": {"issues": group.health},
        "tags": group.tags,
        **group.fields,
    }
    if group.template:
        answer["launchTemplate"] = group.template
    return answer


def _find(store: Store, params: dict[str, Any]) -> tuple[Cluster, Nodegroup]:
    cluster = store.cluster(params["clusterName"])
    return cluster, store.nodegroup(cluster, params["nodegroupName"])


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeNodegroup."""
    cluster, group = _find(store, params)
    nodegroup_lifecycle.reconsider(store, cluster, group)
    return {"nodegroup": described(cluster, group)}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListNodegroups."""
    return page(sorted(store.cluster(params["clusterName"]).nodegroups), params, "nodegroups")


def update_config(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UpdateNodegroupConfig."""
    cluster, group = _find(store, params)
    nodegroup_lifecycle.reconsider(store, cluster, group)
    nodegroup_lifecycle.check_updatable(cluster, group)
    scaling = _scaling(params.get("scalingConfig") or {}, group.scaling)
    changes: dict[str, Any] = {}
    if params.get("scalingConfig"):
        changes = {key[0].upper() + key[1:]: value for key, value in scaling.items()}
    labels, taints = params.get("labels") or {}, params.get("taints") or {}
    if labels:
        changes["LabelsToAdd"], changes["LabelsToRemove"] = (
            labels.get("addOrUpdateLabels"),
            labels.get("removeLabels"),
        )
    if taints:
        changes["TaintsToAdd"], changes["TaintsToRemove"] = (
            taints.get("addOrUpdateTaints"),
            taints.get("removeTaints"),
        )
    for key in ("updateConfig", "nodeRepairConfig"):
        if params.get(key):
            changes[key[0].upper() + key[1:]] = params[key]

    def finish() -> None:
        _apply(group, scaling, labels, taints, params)
        nodegroup_lifecycle.scale(group)
        group.status = "ACTIVE"
        group.modified_at = utcnow()

    group.status = "UPDATING"
    return store.start_update(
        cluster, "ConfigUpdate", changes, durations.NODEGROUP_UPDATE, finish, nodegroup=group.name
    )


def _apply(
    group: Nodegroup,
    scaling: dict[str, int],
    labels: dict[str, Any],
    taints: dict[str, Any],
    params: dict[str, Any],
) -> None:
    group.scaling = scaling
    removed = labels.get("removeLabels") or []
    kept = {k: v for k, v in group.fields["labels"].items() if k not in removed}
    group.fields["labels"] = {**kept, **(labels.get("addOrUpdateLabels") or {})}
    gone = [(t.get("key"), t.get("effect")) for t in taints.get("removeTaints") or []]
    added = taints.get("addOrUpdateTaints") or []
    gone += [(t.get("key"), t.get("effect")) for t in added]
    before = group.fields.get("taints") or []
    left = [t for t in before if (t.get("key"), t.get("effect")) not in gone]
    if left or added or before:
        group.fields["taints"] = [*left, *added]
    for key in ("updateConfig", "nodeRepairConfig"):
        if params.get(key):
            group.fields[key] = params[key]


def delete(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DeleteNodegroup."""
    cluster, group = _find(store, params)
    if group.status == "UPDATING":
        raise errors.in_use(
            "Nodegroup cannot be deleted while it is UPDATING",
            clusterName=cluster.name,
            nodegroupName=group.name,
        )
    if group.status != "DELETING":
        nodegroup_lifecycle.stop(store, cluster, group)
    return {"nodegroup": described(cluster, group)}
