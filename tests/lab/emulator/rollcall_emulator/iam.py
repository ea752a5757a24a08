"""IAM: the managed policies that clusters and nodes need, and trust policies that parse."""

import json
from typing import Any

from .errors import AwsError
from .patching import override

MANAGED_POLICIES = (
    "AdministratorAccess",
    "AmazonEKSClusterPolicy",
    "AmazonEKSVPCResourceController",
    "AmazonEKSServicePolicy",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKSWorkerNodeMinimalPolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryReadOnly",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
    "CloudWatchAgentServerPolicy",
    "AmazonEBSCSIDriverPolicy",
)


def install() -> None:
    """Extends moto's IAM; must run before its backend is made."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data
    from moto.iam.models import AWSManagedPolicy, IAMBackend

    documents = json.loads(aws_managed_policies_data)

    @override(IAMBackend, "_init_aws_policies")
    def init_aws_policies(_original: Any, self: Any) -> list[Any]:
        return [
            AWSManagedPolicy.from_data(name, self.account_id, self.region_name, documents[name])
            for name in MANAGED_POLICIES
            if name in documents
        ]

    @override(IAMBackend, "create_role")
    def create_role(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        document = kwargs.get("assume_role_policy_document") or args[1]
        try:
            trust = json.loads(document)
        except ValueError:
            trust = None
        if not isinstance(trust, dict) or "Statement" not in trust:
            raise AwsError(
                "MalformedPolicyDocument", "This policy contains invalid Json"
            )
        return original(self, *args, **kwargs)


def trusts(role: Any, service: str) -> bool:
    """Whether the role's trust policy lets an AWS service assume it."""
    try:
        statements = json.loads(role.assume_role_policy_document)["Statement"]
    except (ValueError, KeyError, TypeError):
        return False
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        services = services if isinstance(services, list) else [services]
        if statement.get("Effect") == "Allow" and service in services:
            return True
    return False
