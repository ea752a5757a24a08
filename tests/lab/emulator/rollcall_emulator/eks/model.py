"""What EKS keeps: clusters and all that belongs to them, as plain data."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..clock import utcnow


@dataclass
class Update:
    """A change in progress, as DescribeUpdate shows it."""

    id: str
    type: str
    params: list[dict[str, str]]
    nodegroup: str | None = None
    addon: str | None = None
    status: str = "InProgress"
    created_at: datetime = field(default_factory=utcnow)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "id": self.id,
            "status": self.status,
            "type": self.type,
            "params": self.params,
            "createdAt": self.created_at,
            "errors": self.errors,
        }


@dataclass
class AccessEntry:
    """A principal and what Kubernetes knows it as."""

    principal_arn: str
    arn: str
    type: str
    username: str
    groups: list[str]
    tags: dict[str, str]
    created_by_eks: bool = False
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utcnow)
    modified_at: datetime = field(default_factory=utcnow)


@dataclass
class Addon:
    """An installed add-on."""

    name: str
    arn: str
    version: str
    tags: dict[str, str]
    fields: dict[str, Any]
    phase: str = "CREATING"
    created_at: datetime = field(default_factory=utcnow)
    modified_at: datetime = field(default_factory=utcnow)


@dataclass
class Nodegroup:
    """A managed node group and the resources that EKS keeps for it."""

    name: str
    arn: str
    node_role: str
    subnets: list[str]
    scaling: dict[str, int]
    template: dict[str, Any]
    template_data: dict[str, Any]
    fields: dict[str, Any]
    tags: dict[str, str]
    resource_suffix: str
    status: str = "CREATING"
    health: list[dict[str, Any]] = field(default_factory=list)
    autoscaling_group: Any = None
    created_at: datetime = field(default_factory=utcnow)
    modified_at: datetime = field(default_factory=utcnow)


@dataclass
class Cluster:
    """A control plane."""

    name: str
    arn: str
    version: str
    role_arn: str
    vpc: dict[str, Any]
    network: dict[str, Any]
    access: dict[str, Any]
    fields: dict[str, Any]
    tags: dict[str, str]
    oidc_id: str
    status: str = "CREATING"
    interfaces: list[Any] = field(default_factory=list)
    entries: dict[str, AccessEntry] = field(default_factory=dict)
    addons: dict[str, Addon] = field(default_factory=dict)
    nodegroups: dict[str, Nodegroup] = field(default_factory=dict)
    pod_identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    updates: dict[str, Update] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utcnow)
