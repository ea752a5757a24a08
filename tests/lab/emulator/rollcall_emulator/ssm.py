"""Parameter Store: EKS's public parameters, AWS's limits, and who wrote what."""

import re
from typing import Any

from . import images
from .clock import utcnow
from .identity import Directory
from .errors import AwsError
from .patching import override
from .world import ACCOUNT, World

LIMITS = {"Standard": 4096, "Advanced": 8192}
NESTED = re.compile(r"\{\{[^{}]*\}\}")
LEVELS = 15
DESCRIPTION_LIMIT = 1024


def install(world: World, directory: Directory) -> None:
    """Extends moto's Parameter Store."""
    from moto.core.responses import ActionResult
    from moto.ssm.models import Parameter, SimpleSystemManagerBackend
    from moto.ssm.responses import SimpleSystemManagerResponse

    _seed(world, Parameter)

    @override(SimpleSystemManagerBackend, "put_parameter")
    def put_parameter(
        original: Any, self: Any, name: str, description: str, value: str, *rest: Any, **kwargs: Any
    ) -> Any:
        kwargs["tier"] = _tier(kwargs.get("tier"), value or "")
        _check(name, description, value or "", kwargs["tier"])
        return original(self, name, description, value, *rest, **kwargs)

    @override(SimpleSystemManagerResponse, "put_parameter")
    def put_parameter_response(original: Any, self: Any) -> ActionResult:
        result = original(self)
        writer = directory.find(self.access_key)
        parameter = self.ssm_backend.get_parameter(self._get_param("Name"))
        parameter.last_modified_user = writer.arn if writer else None
        return result

    @override(Parameter, "describe_response_object")
    def describe_response_object(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        described = original(self, *args, **kwargs)
        writer = getattr(self, "last_modified_user", None)
        described["LastModifiedUser"] = writer or f"arn:aws:iam::{ACCOUNT}:root"
        return described

    @override(SimpleSystemManagerResponse, "describe_parameters")
    def describe_parameters(_original: Any, self: Any) -> ActionResult:
        found = self.ssm_backend.describe_parameters(
            self._get_param("Filters"), self._get_param("ParameterFilters")
        )
        # The index lists the account's own parameters, never the public ones.
        found = [parameter for parameter in found if not parameter.name.startswith("/aws/")]
        size = min(int(self._get_param("MaxResults") or 50), 50)
        start = int(self._get_param("NextToken") or 0)
        page = [p.describe_response_object(False) for p in found[start : start + size]]
        answer: dict[str, Any] = {"Parameters": page}
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return ActionResult(answer)


def _seed(world: World, parameter_type: type) -> None:
    store = world.ssm._parameters
    for name, value in images.parameters().items():
        store[name].append(
            parameter_type(
                account_id=ACCOUNT,
                name=name,
                value=value,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=utcnow(),
                version=1,
                data_type="text",
                tier="Standard",
            )
        )


def _tier(asked: str | None, value: str) -> str:
    """Intelligent-Tiering is settled at once: the cheapest tier that holds the value."""
    if asked == "Intelligent-Tiering":
        return "Advanced" if len(value.encode()) > LIMITS["Standard"] else "Standard"
    return asked or "Standard"


def _check(name: str, description: str | None, value: str, tier: str) -> None:
    limit = LIMITS.get(tier, LIMITS["Standard"])
    if len(value.encode()) > limit:
        advice = (
            " To create a larger parameter value, upgrade the parameter to use the "
            "advanced-parameter tier."
            if tier == "Standard"
            else ""
        )
        raise AwsError(
            "ValidationException",
            f"{tier} tier parameters support a maximum parameter value of {limit} characters."
            + advice,
        )
    if NESTED.search(value):
        raise AwsError(
            "ValidationException",
            "Parameter value can't nest another parameter. Do not use \"{{}}\" in the value.",
        )
    if name.strip("/").count("/") >= LEVELS:
        raise AwsError(
            "HierarchyLevelLimitExceededException",
            f"The hierarchy of a parameter name can have at most {LEVELS} levels.",
        )
    if description and len(description) > DESCRIPTION_LIMIT:
        raise AwsError(
            "ValidationException",
            "1 validation error detected: Value at 'description' failed to satisfy constraint: "
            f"Member must have length less than or equal to {DESCRIPTION_LIMIT}",
        )
