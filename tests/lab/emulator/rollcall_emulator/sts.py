"""STS: a role must exist to be assumed, and sessions have AWS's limits."""

from typing import Any

from .identity import Directory
from .errors import AwsError
from .patching import override
from .world import World


def install(world: World, directory: Directory) -> None:
    """Extends moto's STS."""
    from moto.iam.exceptions import NotFoundException
    from moto.sts.models import STSBackend

    @override(STSBackend, "assume_role")
    def assume_role(original: Any, self: Any, **kwargs: Any) -> Any:
        duration = kwargs["duration"]
        if not 900 <= duration <= 43200:
            raise AwsError(
                "ValidationError",
                "1 validation error detected: Value at 'durationSeconds' failed to satisfy "
                "constraint: Member must be between 900 and 43200",
            )
        try:
            world.iam.get_role_by_arn(kwargs["role_arn"])
        except NotFoundException as error:
            # STS never tells a missing role from a trust policy that does not name the caller.
            raise AwsError(
                "AccessDenied",
                "User is not authorized to perform: sts:AssumeRole on resource: "
                + kwargs["role_arn"],
            ) from error
        role = original(self, **kwargs)
        directory.remember(role)
        return role
