"""Clusters, access entries, add-ons, versions."""

import base64
from typing import Any

import pytest
from conftest import CA, Emulator, start, until
from scenery import Network, cluster, network, refusal, role, trust


def _asked(emulator: Emulator, net: Network, **changes: Any) -> dict[str, Any]:
    return {
        "name": "prod",
        "version": "1.34",
        "roleArn": role(emulator, "cluster", "eks.amazonaws.com"),
        "resourcesVpcConfig": {"subnetIds": net.subnets},
        "accessConfig": {"authenticationMode": "API"},
        **changes,
    }


def test_a_cluster_lives_and_dies(tmp_path: Any) -> None:
    emulator = start(tmp_path)
    eks, ec2 = emulator.client("eks"), emulator.client("ec2")
    net = network(emulator)
    asked = _asked(emulator, net, clientRequestToken="t-1", tags={"rollcall:fleet": "prod"})
    with refusal("ResourceNotFoundException", "No cluster found for name: prod."):
        eks.describe_cluster(name="prod")
    made = eks.create_cluster(**asked)["cluster"]
    assert made["status"] == "CREATING"
    assert "endpoint" not in made
    assert eks.create_cluster(**asked)["cluster"]["arn"] == made["arn"]
    with refusal("ResourceInUseException"):
        eks.create_cluster(**{**asked, "clientRequestToken": "t-2"})
    with refusal("InvalidRequestException", "not in ACTIVE"):
        eks.create_addon(clusterName="prod", addonName="vpc-cni")
    with refusal("ResourceInUseException"):
        eks.delete_cluster(name="prod")
    until(lambda: eks.describe_cluster(name="prod")["cluster"]["status"] == "ACTIVE")
    found = eks.describe_cluster(name="prod")["cluster"]
    assert found["endpoint"] == "https://localhost:6443"
    assert base64.b64decode(found["certificateAuthority"]["data"]).decode() == CA
    assert found["kubernetesNetworkConfig"]["serviceIpv4Cidr"] == "172.20.0.0/16"
    assert found["accessConfig"]["authenticationMode"] == "API"
    assert found["identity"]["oidc"]["issuer"].startswith("https://oidc.eks.us-east-1.")
    group = found["resourcesVpcConfig"]["clusterSecurityGroupId"]
    described = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert described["VpcId"] == net.vpc
    with refusal("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    with refusal("DependencyViolation"):
        ec2.delete_subnet(SubnetId=net.subnets[0])
    with refusal("ResourceLimitExceededException"):
        eks.create_cluster(**{**asked, "name": "second", "clientRequestToken": "t-3"})
    assert eks.delete_cluster(name="prod")["cluster"]["status"] == "DELETING"
    until(lambda: eks.list_clusters()["clusters"] == [])
    with refusal("InvalidGroup.NotFound"):
        ec2.describe_security_groups(GroupIds=[group])
    for subnet in net.subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=net.vpc)
    # The token of a cluster that is gone makes a new one, not its ghost.
    net = network(emulator)
    eks.create_cluster(**_asked(emulator, net, clientRequestToken="t-1"))
    emulator.close()


def test_what_create_cluster_refuses(tmp_path: Any) -> None:
    emulator = start(tmp_path)
    eks = emulator.client("eks")
    net, other = network(emulator), network(emulator, "10.50.0.0/16")
    good = _asked(emulator, net)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("unsupported Kubernetes version", {"version": "1.19"}),
        ("could not be assumed", {"roleArn": "arn:aws:iam::123456789012:role/none"}),
        (
            "could not be assumed",
            {"roleArn": role(emulator, "not-eks", "ec2.amazonaws.com")},
        ),
        ("two different AZs", {"resourcesVpcConfig": {"subnetIds": net.subnets[:1]}}),
        ("does not exist", {"resourcesVpcConfig": {"subnetIds": ["subnet-0", *net.subnets]}}),
        (
            "same VPC",
            {"resourcesVpcConfig": {"subnetIds": [net.subnets[0], other.subnets[1]]}},
        ),
        (
            "cannot both be disabled",
            {
                "resourcesVpcConfig": {
                    "subnetIds": net.subnets,
                    "endpointPublicAccess": False,
                    "endpointPrivateAccess": False,
                }
            },
        ),
        ("must be within", {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "8.8.0.0/16"}}),
        ("overlaps", {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.0.0.0/20"}}),
    ]
    for text, change in cases:
        with refusal("InvalidParameterException", text):
            eks.create_cluster(**{**good, **change})
    assert eks.list_clusters()["clusters"] == []
    emulator.close()


def test_config_map_mode_has_no_entries(tmp_path: Any) -> None:
    emulator = start(tmp_path)
    net = network(emulator)
    eks = emulator.client("eks")
    asked = _asked(emulator, net)
    del asked["accessConfig"]
    eks.create_cluster(**asked)
    with refusal("InvalidRequestException", "authentication mode"):
        eks.list_access_entries(clusterName="prod")
    emulator.close()


def test_deletion_protection_and_updates(tmp_path: Any) -> None:
    emulator = start(tmp_path)
    eks = emulator.client("eks")
    cluster(emulator, network(emulator), deletionProtection=True)
    with refusal("InvalidRequestException", "deletion protection"):
        eks.delete_cluster(name="prod")
    update = eks.update_cluster_config(name="prod", deletionProtection=False)["update"]
    assert update["status"] == "InProgress"
    with refusal("ResourceInUseException"):
        eks.update_cluster_config(name="prod", deletionProtection=True)
    until(
        lambda: eks.describe_update(name="prod", updateId=update["id"])["update"]["status"]
        == "Successful"
    )
    private = {"endpointPrivateAccess": True, "endpointPublicAccess": True}
    eks.update_cluster_config(name="prod", resourcesVpcConfig=private)
    until(lambda: eks.describe_cluster(name="prod")["cluster"]["status"] == "ACTIVE")
    config = eks.describe_cluster(name="prod")["cluster"]["resourcesVpcConfig"]
    assert config["endpointPrivateAccess"] and len(config["subnetIds"]) == 2
    with refusal("InvalidParameterException", "already at the desired configuration"):
        eks.update_cluster_config(name="prod", resourcesVpcConfig=private)
    eks.delete_cluster(name="prod")
    emulator.close()


def test_versions_and_addon_versions(emulator: Emulator) -> None:
    eks = emulator.client("eks")
    found = {v["clusterVersion"]: v for v in eks.describe_cluster_versions()["clusterVersions"]}
    assert {"1.32", "1.33", "1.34", "1.35"} <= set(found)
    assert [v for v, info in found.items() if info["defaultVersion"]] == ["1.34"]
    addons = eks.describe_addon_versions(kubernetesVersion="1.34", addonName="vpc-cni")["addons"]
    first = addons[0]["addonVersions"][0]
    assert first["compatibilities"] == [
        {"clusterVersion": "1.34", "platformVersions": ["*"], "defaultVersion": True}
    ]


Prod = tuple[dict[str, Any], Network]


def test_the_creator_is_administrator(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    me = "arn:aws:iam::123456789012:user/operator"
    assert me in eks.list_access_entries(clusterName="prod")["accessEntries"]
    policies = eks.list_associated_access_policies(clusterName="prod", principalArn=me)
    assert [p["policyArn"].split("/")[-1] for p in policies["associatedAccessPolicies"]] == [
        "AmazonEKSClusterAdminPolicy"
    ]


def test_node_entries_get_their_name_from_eks(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    arn = role(emulator, "entry-node", "ec2.amazonaws.com")
    made = eks.create_access_entry(clusterName="prod", principalArn=arn, type="EC2_LINUX")
    entry = made["accessEntry"]
    assert entry["username"] == "system:node:{{EC2PrivateDNSName}}"
    assert entry["kubernetesGroups"] == ["system:nodes"]
    with refusal("ResourceInUseException", "already in use"):
        eks.create_access_entry(clusterName="prod", principalArn=arn, type="EC2_LINUX")
    with refusal("InvalidRequestException"):
        eks.associate_access_policy(
            clusterName="prod",
            principalArn=arn,
            policyArn="arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy",
            accessScope={"type": "cluster"},
        )
    eks.delete_access_entry(clusterName="prod", principalArn=arn)
    with refusal("ResourceNotFoundException", "could not be found"):
        eks.describe_access_entry(clusterName="prod", principalArn=arn)


def test_standard_entries_and_their_policies(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    arn = role(emulator, "entry-admin", "ec2.amazonaws.com")
    with refusal("InvalidParameterException", "invalid principal"):
        eks.create_access_entry(
            clusterName="prod", principalArn="arn:aws:iam::123456789012:role/none"
        )
    with refusal("InvalidParameterException", "cannot start with system:"):
        eks.create_access_entry(
            clusterName="prod", principalArn=arn, kubernetesGroups=["system:masters"]
        )
    entry = eks.create_access_entry(
        clusterName="prod", principalArn=arn, kubernetesGroups=["viewers"], tags={"a": "b"}
    )["accessEntry"]
    assert entry["username"] == (
        "arn:aws:sts::123456789012:assumed-role/entry-admin/{{SessionName}}"
    )
    where = {"clusterName": "prod", "principalArn": arn}
    policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    with refusal("InvalidParameterException", "policyArn"):
        eks.associate_access_policy(
            **where, policyArn="arn:aws:iam::aws:policy/x", accessScope={"type": "cluster"}
        )
    eks.associate_access_policy(
        **where, policyArn=policy, accessScope={"type": "namespace", "namespaces": ["jobs"]}
    )
    associated = eks.list_associated_access_policies(**where)["associatedAccessPolicies"]
    assert associated[0]["accessScope"] == {"type": "namespace", "namespaces": ["jobs"]}
    shown = emulator.control("GET", "eks")["clusters"][0]["accessEntries"]
    assert {
        "principalArn": arn,
        "type": "STANDARD",
        "username": entry["username"],
        "groups": ["viewers"],
        "policies": [policy],
    } in shown
    assert eks.list_tags_for_resource(resourceArn=entry["accessEntryArn"])["tags"] == {"a": "b"}
    eks.disassociate_access_policy(**where, policyArn=policy)
    eks.delete_access_entry(**where)


@pytest.mark.parametrize("name", ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"])
def test_an_addon_becomes_active_and_goes(emulator: Emulator, prod: Prod, name: str) -> None:
    eks = emulator.client("eks")
    where = {"clusterName": "prod", "addonName": name}
    with refusal("ResourceNotFoundException", "No addon"):
        eks.describe_addon(**where)
    assert eks.create_addon(**where)["addon"]["status"] == "CREATING"
    with refusal("ResourceInUseException", "Addon already exists"):
        eks.create_addon(**where)
    until(lambda: eks.describe_addon(**where)["addon"]["status"] == "ACTIVE")
    eks.update_addon(**where, configurationValues="{}")
    until(lambda: eks.describe_addon(**where)["addon"]["status"] == "ACTIVE")
    assert eks.describe_addon(**where)["addon"]["configurationValues"] == "{}"
    assert eks.delete_addon(**where)["addon"]["status"] == "DELETING"
    until(lambda: name not in eks.list_addons(clusterName="prod")["addons"])


def test_coredns_is_active_only_while_its_pods_run(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    where = {"clusterName": "prod", "addonName": "coredns"}
    eks.create_addon(**where)
    until(lambda: eks.describe_addon(**where)["addon"]["status"] == "DEGRADED")
    issues = eks.describe_addon(**where)["addon"]["health"]["issues"]
    assert [issue["code"] for issue in issues] == ["InsufficientNumberOfReplicas"]
    emulator.control("POST", "workloads", {"coredns": {"available": 2}})
    assert eks.describe_addon(**where)["addon"]["status"] == "ACTIVE"
    emulator.control("POST", "workloads", {"coredns": {"available": 0}})
    assert eks.describe_addon(**where)["addon"]["status"] == "DEGRADED"
    eks.delete_addon(**where)


def test_a_daemonset_is_active_until_one_of_its_pods_is_not(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    where = {"clusterName": "prod", "addonName": "vpc-cni"}
    eks.create_addon(**where)
    until(lambda: eks.describe_addon(**where)["addon"]["status"] == "ACTIVE")
    emulator.control("POST", "workloads", {"vpc-cni": {"available": 0}})
    assert eks.describe_addon(**where)["addon"]["status"] == "DEGRADED"
    emulator.control("POST", "workloads", {"vpc-cni": {"available": 1}})
    assert eks.describe_addon(**where)["addon"]["status"] == "ACTIVE"
    eks.delete_addon(**where)
    until(lambda: "vpc-cni" not in eks.list_addons(clusterName="prod")["addons"])


def test_addons_that_eks_does_not_offer(emulator: Emulator, prod: Prod) -> None:
    eks = emulator.client("eks")
    with refusal("InvalidParameterException", "not supported"):
        eks.create_addon(clusterName="prod", addonName="no-such-addon")
    with refusal("InvalidParameterException", "version"):
        eks.create_addon(clusterName="prod", addonName="vpc-cni", addonVersion="v0.0.1")


def test_a_trust_policy_must_parse(emulator: Emulator) -> None:
    iam = emulator.client("iam")
    with refusal("MalformedPolicyDocument"):
        iam.create_role(RoleName="broken", AssumeRolePolicyDocument="not json")
    iam.create_role(RoleName="whole", AssumeRolePolicyDocument=trust("ec2.amazonaws.com"))
    for policy in (
        "AmazonEKSWorkerNodePolicy",
        "AmazonEKSWorkerNodeMinimalPolicy",
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonSSMManagedInstanceCore",
        "AmazonEKS_CNI_Policy",
        "AmazonEKSClusterPolicy",
    ):
        iam.attach_role_policy(RoleName="whole", PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    with refusal("DeleteConflict"):
        iam.delete_role(RoleName="whole")
