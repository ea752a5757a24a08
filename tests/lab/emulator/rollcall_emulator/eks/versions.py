"""Kubernetes versions and add-on versions that EKS offers."""

from datetime import UTC, datetime
from typing import Any

from . import errors

DEFAULT_VERSION = "1.34"
# version -> (patch, platform version, release, end of standard support, end of extended support)
VERSIONS = {
    "1.35": ("1.35.0", "eks.2", "2026-03-03", "2027-05-03", "2028-05-03"),
    "1.34": ("1.34.2", "eks.10", "2025-10-02", "2026-12-02", "2027-12-02"),
    "1.33": ("1.33.5", "eks.24", "2025-05-29", "2026-07-29", "2027-07-29"),
    "1.32": ("1.32.9", "eks.31", "2025-01-23", "2026-03-23", "2027-03-23"),
}
# add-on -> (revision per Kubernetes version or one for all, namespace's pods)
ADDONS = {
    "vpc-cni": ["v1.20.4-eksbuild.1", "v1.20.3-eksbuild.1", "v1.19.6-eksbuild.7"],
    "eks-pod-identity-agent": ["v1.3.9-eksbuild.3", "v1.3.8-eksbuild.2"],
    "eks-node-monitoring-agent": ["v1.4.2-eksbuild.1", "v1.4.1-eksbuild.1"],
    "aws-ebs-csi-driver": ["v1.51.1-eksbuild.1", "v1.50.1-eksbuild.1"],
    "metrics-server": ["v0.8.0-eksbuild.3", "v0.8.0-eksbuild.2"],
}
COREDNS = {
    "1.35": "v1.13.1-eksbuild.1",
    "1.34": "v1.12.4-eksbuild.1",
    "1.33": "v1.12.1-eksbuild.2",
    "1.32": "v1.11.4-eksbuild.2",
}


def addon_versions(name: str, kubernetes: str) -> list[str]:
    """The add-on's versions for a Kubernetes version, newest (the default) first."""
    if name == "coredns":
        return [COREDNS[kubernetes]]
    if name == "kube-proxy":
        return [f"v{VERSIONS[kubernetes][0]}-eksbuild.2", f"v{kubernetes}.0-eksbuild.2"]
    return ADDONS.get(name, [])


def addon_names() -> list[str]:
    """Every add-on we know."""
    return sorted([*ADDONS, "coredns", "kube-proxy"])


def checked(version: str | None) -> str:
    """The version asked for, or the default; a version EKS does not offer is refused."""
    if version is None:
        return DEFAULT_VERSION
    if version not in VERSIONS:
        raise errors.invalid_parameter(f"unsupported Kubernetes version {version}")
    return version


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def describe_cluster_versions(_store: Any, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeClusterVersions."""
    now = datetime.now(UTC)
    found = []
    for version, (patch, platform, release, standard, extended) in VERSIONS.items():
        if params.get("clusterVersions") and version not in params["clusterVersions"]:
            continue
        if params.get("defaultOnly") and version != DEFAULT_VERSION:
            continue
        supported = "STANDARD_SUPPORT" if now < _date(standard) else "EXTENDED_SUPPORT"
        found.append(
            {
                "clusterVersion": version,
                "clusterType": "eks",
                "defaultPlatformVersion": platform,
                "defaultVersion": version == DEFAULT_VERSION,
                "releaseDate": _date(release),
                "endOfStandardSupportDate": _date(standard),
                "endOfExtendedSupportDate": _date(extended),
                "status": supported.lower().replace("_", "-"),
                "versionStatus": supported,
                "kubernetesPatchVersion": patch,
            }
        )
    return {"clusterVersions": found}


def describe_addon_versions(_store: Any, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeAddonVersions."""
    kubernetes = [params["kubernetesVersion"]] if params.get("kubernetesVersion") else [*VERSIONS]
    names = [params["addonName"]] if params.get("addonName") else addon_names()
    addons = []
    for name in names:
        known: dict[str, list[dict[str, Any]]] = {}
        for cluster_version in kubernetes:
            offered = addon_versions(name, cluster_version) if cluster_version in VERSIONS else []
            for rank, version in enumerate(offered):
                known.setdefault(version, []).append(
                    {
                        "clusterVersion": cluster_version,
                        "platformVersions": ["*"],
                        "defaultVersion": rank == 0,
                    }
                )
        if known:
            addons.append(_addon_info(name, known))
    return {"addons": addons}


def _addon_info(name: str, known: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    versions = [
        {
            "addonVersion": version,
            "architecture": ["amd64", "arm64"],
            "computeTypes": ["ec2", "fargate"],
            "compatibilities": compatibilities,
            "requiresConfiguration": False,
            "requiresIamPermissions": name in ("vpc-cni", "aws-ebs-csi-driver"),
        }
        for version, compatibilities in known.items()
    ]
    return {
        "addonName": name,
        "type": "networking" if name in ("vpc-cni", "coredns", "kube-proxy") else "security",
        "addonVersions": versions,
        "publisher": "eks",
        "owner": "aws",
        "defaultNamespace": "kube-system",
    }
