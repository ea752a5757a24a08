"""EKS's modelled errors. Never a bare HTTP status: clients must tell "does not exist" apart."""

from typing import Any

from ..errors import AwsError


def _error(code: str, message: str, **fields: str | None) -> Exception:
    error = AwsError(code, message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def invalid_parameter(message: str, **fields: str | None) -> Exception:
    """A parameter that can never be right."""
    return _error("InvalidParameterException", message, **fields)


def invalid_request(message: str, **fields: str | None) -> Exception:
    """A request that does not fit the present state."""
    return _error("InvalidRequestException", message, **fields)


def in_use(message: str, **fields: str | None) -> Exception:
    """The name is taken or something hangs on the resource."""
    return _error("ResourceInUseException", message, **fields)


def not_found(message: str, **fields: str | None) -> Exception:
    """There is no such resource."""
    return _error("ResourceNotFoundException", message, **fields)


def limit_exceeded(message: str, **fields: str | None) -> Exception:
    """A quota."""
    return _error("ResourceLimitExceededException", message, **fields)


def required(params: dict[str, Any], *names: str) -> None:
    """Refuses a request that lacks a required parameter."""
    for name in names:
        if not params.get(name):
            raise invalid_parameter(f"{name} can't be blank")
