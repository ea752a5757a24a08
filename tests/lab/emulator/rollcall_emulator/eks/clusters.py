"""Clusters: CREATING -> ACTIVE -> DELETING, with a security group and interfaces in the VPC."""

import base64
import ipaddress
import secrets
from typing import Any

from .. import durations
from ..iam import trusts
from ..world import arn
from . import access, errors, versions
from .model import Cluster
from .store import Store, page

PRIVATE_RANGES = [
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
]


def create(store: Store, params: dict[str, Any], caller: Any) -> dict[str, Any]:
    """CreateCluster."""
    errors.required(params, "name", "roleArn", "resourcesVpcConfig")
    name = params["name"]
    if name in store.clusters:
        if store.replayed("CreateCluster", params):
            return {"cluster": described(store, store.clusters[name])}
        raise errors.in_use(f"Cluster already exists with name: {name}", clusterName=name)
    if store.clusters:
        raise errors.limit_exceeded(
            "You have reached the maximum number of clusters: the lab has one Kubernetes API "
            "server",
            clusterName=name,
        )
    version = versions.checked(params.get("version"))
    _check_role(store, params["roleArn"])
    subnets = _check_subnets(store, params["resourcesVpcConfig"])
    vpc = store.world.ec2.get_vpc(subnets[0].vpc_id)
    cluster = Cluster(
        name=name,
        arn=arn("eks", f"cluster/{name}"),
        version=version,
        role_arn=params["roleArn"],
        vpc=_vpc_config(params["resourcesVpcConfig"], vpc.id),
        network=_network_config(params.get("kubernetesNetworkConfig") or {}, vpc.cidr_block),
        access=_access_config(params.get("accessConfig") or {}),
        fields=_other_fields(params),
        tags=dict(params.get("tags") or {}),
        oidc_id=secrets.token_hex(16).upper(),
    )
    cluster.vpc["clusterSecurityGroupId"] = _security_group(store, cluster)
    if cluster.access["bootstrapClusterCreatorAdminPermissions"]:
        access.bootstrap_creator(store, cluster, caller)
    store.clusters[name] = cluster
    store.keep_token("CreateCluster", params)
    store.world.clock.after(durations.CLUSTER_CREATE, lambda: _active(store, cluster))
    return {"cluster": described(store, cluster)}


def _active(store: Store, cluster: Cluster) -> None:
    if cluster.status != "CREATING":
        return
    ec2 = store.world.ec2
    # EKS reaches the nodes through interfaces in the cluster's subnets; they hold the subnets.
    for subnet_id in cluster.vpc["subnetIds"][:2]:
        subnet = ec2.get_subnet(subnet_id)
        interface = ec2.create_network_interface(
            subnet,
            subnet.get_available_subnet_ip(cluster),
            group_ids=[cluster.vpc["clusterSecurityGroupId"], *cluster.vpc["securityGroupIds"]],
            description=f"Amazon EKS {cluster.name}",
            tags={"cluster.k8s.amazonaws.com/name": cluster.name},
        )
        interface.requester_managed = True
        interface.status = "in-use"
        cluster.interfaces.append(interface)
    cluster.status = "ACTIVE"


def _check_role(store: Store, role_arn: str) -> None:
    role = next((r for r in list(store.world.iam.roles.values()) if r.arn == role_arn), None)
    if role is None or not trusts(role, "eks.amazonaws.com"):
        raise errors.invalid_parameter(
            f"Role with arn: {role_arn}, could not be assumed because it does not exist or the "
            "trusted entity is not correct"
        )


def _check_subnets(store: Store, config: dict[str, Any]) -> list[Any]:
    subnets = [find_subnet(store, subnet_id) for subnet_id in config.get("subnetIds") or []]
    if len({subnet.availability_zone for subnet in subnets}) < 2:
        raise errors.invalid_parameter(
            "Subnets specified must be in at least two different AZs"
        )
    if len({subnet.vpc_id for subnet in subnets}) > 1:
        raise errors.invalid_parameter("Subnets specified must belong to the same VPC")
    for group_id in config.get("securityGroupIds") or []:
        if store.world.ec2.get_security_group_from_id(group_id) is None:
            raise errors.invalid_parameter(
                f"The security group ID '{group_id}' does not exist"
            )
    return subnets


def find_subnet(store: Store, subnet_id: str) -> Any:
    """The subnet, or EKS's relay of EC2's refusal."""
    from moto.ec2.exceptions import InvalidSubnetIdError

    try:
        return store.world.ec2.get_subnet(subnet_id)
    except InvalidSubnetIdError as error:
        raise errors.invalid_parameter(
            f"The subnet ID '{subnet_id}' does not exist (Service: AmazonEC2; Status Code: 400; "
            "Error Code: InvalidSubnetID.NotFound)"
        ) from error


def _vpc_config(config: dict[str, Any], vpc_id: str) -> dict[str, Any]:
    public = config.get("endpointPublicAccess", True)
    private = config.get("endpointPrivateAccess", False)
    if not public and not private:
        raise errors.invalid_parameter(
            "Private and public endpoint access cannot both be disabled"
        )
    cidrs = list(config.get("publicAccessCidrs") or ["0.0.0.0/0"])
    return {
        "subnetIds": list(config["subnetIds"]),
        "securityGroupIds": list(config.get("securityGroupIds") or []),
        "vpcId": vpc_id,
        "endpointPublicAccess": public,
        "endpointPrivateAccess": private,
        "publicAccessCidrs": cidrs if public else [],
    }


def _network_config(config: dict[str, Any], vpc_cidr: str) -> dict[str, Any]:
    vpc = ipaddress.ip_network(vpc_cidr)
    given = config.get("serviceIpv4Cidr")
    default = "172.20.0.0/16" if vpc.overlaps(PRIVATE_RANGES[0]) else "10.100.0.0/16"
    try:
        service = ipaddress.ip_network(given or default)
    except ValueError as error:
        raise errors.invalid_parameter(f"Service IPv4 CIDR '{given}' is not valid") from error
    if not 12 <= service.prefixlen <= 24 or not any(service.subnet_of(r) for r in PRIVATE_RANGES):
        raise errors.invalid_parameter(
            f"Service IPv4 CIDR {service} must be within 10.0.0.0/8, 172.16.0.0/12 or "
            "192.168.0.0/16 and between /24 and /12"
        )
    if service.overlaps(vpc):
        raise errors.invalid_parameter(
            f"Service IPv4 CIDR {service} overlaps with the VPC CIDR {vpc}"
        )
    return {
        "serviceIpv4Cidr": str(service),
        "ipFamily": config.get("ipFamily") or "ipv4",
        "elasticLoadBalancing": {"enabled": False},
    }


def _access_config(config: dict[str, Any]) -> dict[str, Any]:
    bootstrap = config.get("bootstrapClusterCreatorAdminPermissions")
    return {
        "authenticationMode": config.get("authenticationMode") or "CONFIG_MAP",
        "bootstrapClusterCreatorAdminPermissions": bootstrap is None or bool(bootstrap),
    }


def _other_fields(params: dict[str, Any]) -> dict[str, Any]:
    logging = params.get("logging") or {
        "clusterLogging": [
            {
                "types": ["api", "audit", "authenticator", "controllerManager", "scheduler"],
                "enabled": False,
            }
        ]
    }
    return {
        "logging": logging,
        "encryptionConfig": params.get("encryptionConfig"),
        "upgradePolicy": params.get("upgradePolicy") or {"supportType": "EXTENDED"},
        "deletionProtection": bool(params.get("deletionProtection")),
    }


def _security_group(store: Store, cluster: Cluster) -> str:
    ec2 = store.world.ec2
    group = ec2.create_security_group(
        f"eks-cluster-sg-{cluster.name}-{secrets.randbelow(10**10):010d}",
        "EKS created security group applied to ENI that is attached to EKS Control Plane master "
        "nodes, as well as any managed workloads.",
        vpc_id=cluster.vpc["vpcId"],
        tags={
            f"kubernetes.io/cluster/{cluster.name}": "owned",
            "aws:eks:cluster-name": cluster.name,
        },
    )
    ec2.authorize_security_group_ingress(
        group.id, "-1", "-1", "-1", [], source_groups=[{"GroupId": group.id}],
        vpc_id=cluster.vpc["vpcId"],
    )  # fmt: skip
    return group.id


def described(store: Store, cluster: Cluster) -> dict[str, Any]:
    """The wire form; endpoint and CA are there only once the cluster has been ACTIVE."""
    settings = store.world.settings
    issuer = f"https://oidc.eks.us-east-1.amazonaws.com/id/{cluster.oidc_id}"
    answer = {
        "name": cluster.name,
        "arn": cluster.arn,
        "createdAt": cluster.created_at,
        "version": cluster.version,
        "roleArn": cluster.role_arn,
        "resourcesVpcConfig": cluster.vpc,
        "kubernetesNetworkConfig": cluster.network,
        "status": cluster.status,
        "platformVersion": versions.VERSIONS[cluster.version][1],
        "tags": cluster.tags,
        "health": {"issues": []},
        "accessConfig": cluster.access,
        **cluster.fields,
    }
    if cluster.status != "CREATING":
        answer["endpoint"] = settings.kubernetes_endpoint
        authority = base64.b64encode(settings.kubernetes_ca.encode()).decode()
        answer["certificateAuthority"] = {"data": authority}
        answer["identity"] = {"oidc": {"issuer": issuer}}
    return answer


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeCluster."""
    return {"cluster": described(store, store.cluster(params["name"]))}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListClusters."""
    return page(sorted(store.clusters), params, "clusters")


def delete(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DeleteCluster."""
    cluster = store.cluster(params["name"])
    if cluster.nodegroups:
        raise errors.in_use("Cluster has nodegroups attached", clusterName=cluster.name)
    if cluster.status in ("CREATING", "UPDATING"):
        raise errors.in_use(
            f"Cluster {cluster.name} cannot be deleted while it is {cluster.status}",
            clusterName=cluster.name,
        )
    if cluster.fields["deletionProtection"]:
        raise errors.invalid_request(
            "Cluster deletion is blocked because deletion protection is enabled",
            clusterName=cluster.name,
        )
    if cluster.status == "ACTIVE":
        cluster.status = "DELETING"
        store.world.clock.after(durations.CLUSTER_DELETE, lambda: _deleted(store, cluster))
    return {"cluster": described(store, cluster)}


def _deleted(store: Store, cluster: Cluster) -> None:
    from moto.core.exceptions import ServiceException

    ec2 = store.world.ec2
    for interface in cluster.interfaces:
        interface.subnet.del_subnet_ip(interface.private_ip_address)
        ec2.enis.pop(interface.id, None)
    store.clusters.pop(cluster.name, None)
    try:
        ec2.delete_security_group(group_id=cluster.vpc["clusterSecurityGroupId"])
    except ServiceException:
        # EKS leaves its group behind when something of the user's still uses it.
        return


def update_config(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UpdateClusterConfig: one kind of change at a time, as in EKS."""
    cluster = store.cluster(params["name"])
    if cluster.status != "ACTIVE":
        raise errors.in_use(
            f"Cannot update because cluster {cluster.name} currently has status {cluster.status}",
            clusterName=cluster.name,
        )
    kind, changes, change = _change(cluster, params)

    def finish() -> None:
        change()
        cluster.status = "ACTIVE"

    cluster.status = "UPDATING"
    return store.start_update(cluster, kind, changes, durations.CLUSTER_UPDATE, finish)


def _change(cluster: Cluster, params: dict[str, Any]) -> tuple[str, dict[str, Any], Any]:
    vpc = params.get("resourcesVpcConfig")
    if vpc:
        merged = {**cluster.vpc, **{key: value for key, value in vpc.items() if value is not None}}
        if all(merged.get(key) == cluster.vpc.get(key) for key in vpc):
            raise errors.invalid_parameter(
                f"Cluster is already at the desired configuration with endpointPrivateAccess: "
                f"{merged['endpointPrivateAccess']}, endpointPublicAccess: "
                f"{merged['endpointPublicAccess']}, and Public Endpoint Restrictions: "
                f"{merged['publicAccessCidrs']}",
                clusterName=cluster.name,
            )
        changes = {key[0].upper() + key[1:]: value for key, value in vpc.items()}
        return "EndpointAccessUpdate", changes, lambda: cluster.vpc.update(merged)
    if mode := (params.get("accessConfig") or {}).get("authenticationMode"):
        order = ["CONFIG_MAP", "API_AND_CONFIG_MAP", "API"]
        if order.index(mode) < order.index(cluster.access["authenticationMode"]):
            raise errors.invalid_parameter(
                f"Unsupported authentication mode update from "
                f"{cluster.access['authenticationMode']} to {mode}"
            )
        change = lambda: cluster.access.update(authenticationMode=mode)  # noqa: E731
        return "AccessConfigUpdate", {"AuthenticationMode": mode}, change
    for key, kind in (
        ("logging", "LoggingUpdate"),
        ("deletionProtection", "DeletionProtectionUpdate"),
        ("upgradePolicy", "UpgradePolicyUpdate"),
    ):
        if params.get(key) is not None:
            value = params[key]
            shown = {kind.removesuffix("Update"): value}
            return kind, shown, lambda: cluster.fields.update({key: value})
    raise errors.invalid_parameter("No changes needed for the cluster config provided")
