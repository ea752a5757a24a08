"""IAM: the managed policies that clusters and nodes need, and trust policies that parse."""

import json
from typing import Any

from . import policy
from .errors import AwsError
from .patching import override
from .world import World

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


def documents_of(role: Any) -> list[dict[str, Any]]:
    """A role's policies, inline and attached."""
    managed = [
        version.document
        for attached in role.managed_policies.values()
        for version in attached.versions
        if version.version_id == attached.default_version_id
    ]
    return [json.loads(document) for document in [*role.policies.values(), *managed]]


def install_simulation(world: World) -> None:
    """SimulatePrincipalPolicy: what a role's policies say of `*`. Users are administrators here."""
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> ActionResult:
        source = self._get_param("PolicySourceArn")
        role = next((r for r in world.iam.roles.values() if r.arn == source), None)
        if role is None and ":user/" not in source:
            raise AwsError("NoSuchEntity", f"{source} cannot be found.")
        documents = documents_of(role) if role else None

        def decision(action: str) -> str:
            if documents is None or policy.allows(documents, action, "*", {}):
                return "allowed"
            return "implicitDeny"

        results = [
            {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": decision(action)}
            for action in self._get_param("ActionNames", [])
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    IamResponse.simulate_principal_policy = simulate_principal_policy


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
