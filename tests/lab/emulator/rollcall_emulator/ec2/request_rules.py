"""What EC2 does to every request of a kind: DryRun, and client tokens that replay.

A replay answers what the first call answered. When the resource is gone, a token is forgotten;
for RunInstances EC2 refuses instead (IdempotentInstanceTerminated).
"""

import re
from typing import Any

from .. import errors
from ..patching import override
from ..world import World

CREATED = {
    "RunInstances": re.compile(r"<instanceId>(i-[0-9a-f]+)<"),
    "CreateNatGateway": re.compile(r"<natGatewayId>(nat-[0-9a-f]+)<"),
    "CreateLaunchTemplate": re.compile(r"<launchTemplateId>(lt-[0-9a-f]+)<"),
    "CreateLaunchTemplateVersion": re.compile(r"<launchTemplateId>(lt-[0-9a-f]+)<"),
    "CreateFleet": re.compile(r"<fleetId>(fleet-[0-9a-f-]+)<"),
    "CreateVpcEndpoint": re.compile(r"<vpcEndpointId>(vpce-[0-9a-f]+)<"),
}
# These check their request before they say that it would have succeeded.
DRY_RUN_AFTER_CHECKS = {"RunInstances", "CreateFleet"}

Answer = tuple[int, dict[str, Any], Any]


class Tokens:
    """Client token -> the answer it got."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._answers: dict[tuple[str, str], tuple[str, str, Answer]] = {}

    def replay(self, op: str, token: str, fingerprint: str) -> Answer | None:
        """The earlier answer to this token, if its resource still lives."""
        known = self._answers.get((op, token))
        if known is None:
            return None
        before, resource, answer = known
        if before != fingerprint:
            return _error(
                400,
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )
        if self._exists(resource):
            return answer
        if op == "RunInstances":
            return _error(
                400,
                "IdempotentInstanceTerminated",
                "The request to launch an instance uses the same client token as a previous "
                "request for which the instance has been terminated.",
            )
        del self._answers[(op, token)]
        return None

    def remember(self, op: str, token: str, fingerprint: str, answer: Answer) -> None:
        """Keeps the answer of a call that made something."""
        created = CREATED[op].search(str(answer[2]))
        if answer[0] < 300 and created:
            self._answers[(op, token)] = (fingerprint, created[1], answer)

    def _exists(self, resource: str) -> bool:
        ec2 = self.world.ec2
        if resource.startswith("i-"):
            instance = ec2.get_instance_by_id(resource)
            return instance is not None and instance.state not in ("shutting-down", "terminated")
        if resource.startswith("nat-"):
            gateway = ec2.nat_gateways.get(resource)
            return gateway is not None and gateway.state in ("pending", "available")
        if resource.startswith("vpce-"):
            endpoint = ec2.vpc_end_points.get(resource)
            return endpoint is not None and endpoint.state not in ("deleting", "deleted")
        if resource.startswith("lt-"):
            return resource in ec2.launch_templates
        return resource in ec2.fleets


def _error(status: int, code: str, message: str) -> Answer:
    status, headers, body = errors.render("ec2", status, code, message)
    return status, dict(headers), body.decode()


def install(world: World) -> None:
    """Puts DryRun and client tokens before moto's EC2."""
    from moto.ec2.responses import EC2Response

    tokens = Tokens(world)

    @override(EC2Response, "call_action")
    def call_action(original: Any, self: Any) -> Answer:
        op = self._get_action()
        params = {key: value[0] for key, value in self.querystring.items()}
        if params.get("DryRun") == "true" and op not in DRY_RUN_AFTER_CHECKS:
            message = "Request would have succeeded, but DryRun flag is set."
            return _error(412, "DryRunOperation", message)
        token = params.get("ClientToken")
        if op not in CREATED or not token:
            return original(self)
        fingerprint = repr(sorted(item for item in params.items() if item[0] != "ClientToken"))
        answer = tokens.replay(op, token, fingerprint)
        if answer is None:
            answer = original(self)
            tokens.remember(op, token, fingerprint, answer)
        return answer
