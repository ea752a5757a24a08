"""May this role session do this? Gathers the policies of the role and the facts of the request for
`policy.py`. The operator and IAM users are administrators; role sessions have what their role has.
"""

from typing import Any

from . import errors, policy
from .iam import documents_of
from .identity import Principal
from .request import Call
from .world import ACCOUNT, PARTITION, REGION, World, arn

# Needs no permission anywhere.
FREE = {("sts", "GetCallerIdentity")}
# Operations whose permission has another name.
ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
}


class Authorizer:
    """Decides about role sessions."""

    def __init__(self, world: World) -> None:
        self.world = world

    def refuse(self, call: Call, caller: Principal | None) -> errors.Response | None:
        """The service's refusal, or None where the call is allowed."""
        if caller is None or caller.role_name is None or (call.service, call.op) in FREE:
            return None
        documents = self._documents(caller.role_name)
        for action, resource in self._needs(call):
            facts = self._facts(call, caller, resource)
            if not policy.allows(documents, action, resource, facts):
                return _denied(call, caller, action, resource)
        return None

    def _documents(self, role_name: str) -> list[dict[str, Any]]:
        roles = list(self.world.iam.roles.values())
        role = next((role for role in roles if role.name == role_name), None)
        if role is None:
            return []
        return documents_of(role)

    def _needs(self, call: Call) -> list[tuple[str, str]]:
        """The permissions that the call needs, each on its resource."""
        own = f"{call.service}:{call.op}"
        action = ACTIONS.get(own, own)
        resources = self._resources(call)
        needs = [(action, resource) for resource in resources]
        if own == "ssm:PutParameter" and call.params.get("Tags"):
            needs += [("ssm:AddTagsToResource", resource) for resource in resources]
        return needs

    def _resources(self, call: Call) -> list[str]:
        if call.service == "ssm":
            return _ssm_resources(call)
        if call.service == "eks":
            return [self._eks_resource(call)]
        if call.service == "s3":
            bucket, key = call.params.get("Bucket", ""), call.params.get("Key")
            return [f"arn:{PARTITION}:s3:::{bucket}" + (f"/{key}" if key else "")]
        if call.op in ("CreateTags", "DeleteTags"):
            return [_ec2_arn(v) for k, v in call.params.items() if k.startswith("ResourceId.")]
        return ["*"]

    def _eks_resource(self, call: Call) -> str:
        """By what the operation is about, as EKS's service authorization reference has it."""
        cluster = call.params.get("name") or call.params.get("clusterName")
        store = self.world.eks
        found = store.clusters.get(cluster) if cluster else None
        for key, kind, members in (
            ("nodegroupName", "nodegroup", found.nodegroups if found else {}),
            ("addonName", "addon", found.addons if found else {}),
        ):
            name = call.params.get(key)
            if cluster and name:
                known = members.get(name)
                return known.arn if known else arn("eks", f"{kind}/{cluster}/{name}/unknown")
        return arn("eks", f"cluster/{cluster}") if cluster else "*"

    def _facts(self, call: Call, caller: Principal, resource: str) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "aws:userid": caller.user_id,
            "aws:PrincipalArn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/{caller.role_name}",
            # AWS's example of an instance that tags itself compares this with
            # ec2:SourceInstanceARN: it is the ARN of the resource.
            "aws:ARN": resource,
            "aws:RequestedRegion": REGION,
            "aws:PrincipalAccount": ACCOUNT,
            "aws:SecureTransport": "false",
        }
        if caller.instance_id:
            facts["ec2:SourceInstanceARN"] = _ec2_arn(caller.instance_id)
        requested = _requested_tags(call)
        facts["aws:TagKeys"] = list(requested)
        facts.update({f"aws:RequestTag/{key}": value for key, value in requested.items()})
        for key, value in self._resource_tags(call.service, resource).items():
            facts[f"aws:ResourceTag/{key}"] = value
            facts[f"{call.service}:ResourceTag/{key}"] = value
        return facts

    def _resource_tags(self, service: str, resource: str) -> dict[str, str]:
        name = resource.split(":", 5)[-1]
        if service == "ssm" and name.startswith("parameter/"):
            parameters = self.world.ssm._resource_tags.get("Parameter", {})
            name = name.removeprefix("parameter")
            return dict(parameters.get(name) or parameters.get(name.lstrip("/")) or {})
        if service == "ec2" and "/" in name:
            return dict(self.world.ec2.tags.get(name.split("/", 1)[1], {}))
        return {}


def _ssm_resources(call: Call) -> list[str]:
    names = call.params.get("Names") or [
        call.params[key] for key in ("Name", "Path", "ResourceId") if call.params.get(key)
    ]
    if not names:
        return [arn("ssm", "*")]
    return [arn("ssm", f"parameter/{str(name).strip('/').split(':')[0]}") for name in names]


EC2_KINDS = {"i": "instance", "vol": "volume", "eni": "network-interface", "subnet": "subnet"}


def _ec2_arn(resource_id: str) -> str:
    prefix = resource_id.split("-", 1)[0]
    return arn("ec2", f"{EC2_KINDS.get(prefix, prefix)}/{resource_id}")


def _requested_tags(call: Call) -> dict[str, str]:
    if isinstance(call.params.get("Tags"), list):
        return {tag["Key"]: tag.get("Value", "") for tag in call.params["Tags"]}
    keys = {k.split(".")[1]: v for k, v in call.params.items() if _is_tag(k, "Key")}
    values = {k.split(".")[1]: v for k, v in call.params.items() if _is_tag(k, "Value")}
    return {key: values.get(number, "") for number, key in keys.items()}


def _is_tag(name: str, part: str) -> bool:
    return name.startswith("Tag.") and name.endswith(f".{part}")


def _denied(call: Call, caller: Principal, action: str, resource: str) -> errors.Response:
    because = "because no identity-based policy allows the action"
    message = f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource} "
    message += because
    if call.service == "ec2":
        message = f"You are not authorized to perform this operation. {message}"
        return errors.render("ec2", 403, "UnauthorizedOperation", message)
    if call.service == "ssm":
        return errors.render("ssm", 400, "AccessDeniedException", message)
    if call.service == "eks":
        return errors.render("eks", 403, "AccessDeniedException", message)
    return errors.render(call.service, 403, "AccessDenied", message)
