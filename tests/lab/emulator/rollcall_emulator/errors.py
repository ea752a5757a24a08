"""Errors in the shape that each AWS protocol gives them, for faults and front-door refusals."""

import json
import uuid
from xml.sax.saxutils import escape

from moto.core.exceptions import ServiceException

# Error code and HTTP status of "too many requests", by service.
THROTTLES = {
    "ec2": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "ssm": (400, "ThrottlingException", "Rate exceeded"),
    "eks": (429, "ThrottlingException", "Rate exceeded"),
    "s3": (503, "SlowDown", "Please reduce your request rate."),
}
DEFAULT_THROTTLE = (400, "Throttling", "Rate exceeded")


class AwsError(ServiceException):
    """A modelled error that moto renders in the protocol of the service that raised it.

    A class of our own: moto takes the service model from the module of its own exceptions.
    """


Response = tuple[int, list[tuple[str, str]], bytes]


def throttle(service: str) -> Response:
    """The service's own way to say "slow down"."""
    return render(service, *THROTTLES.get(service, DEFAULT_THROTTLE))


def render(service: str, status: int, code: str, message: str) -> Response:
    """An error answer as the service's protocol spells it."""
    request_id = str(uuid.uuid4())
    if service in ("ssm", "events", "sqs", "kms", "ecr", "logs", "servicequotas", "pricing"):
        body = json.dumps({"__type": code, "message": message})
        return status, _headers("application/x-amz-json-1.1", request_id), body.encode()
    if service == "eks":
        body = json.dumps({"message": message})
        headers = _headers("application/json", request_id)
        return status, [*headers, ("x-amzn-ErrorType", code)], body.encode()
    return status, _headers("text/xml;charset=UTF-8", request_id), _xml(
        service, status, code, message, request_id
    ).encode()


def _headers(content_type: str, request_id: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), ("x-amzn-RequestId", request_id)]


def _xml(service: str, status: int, code: str, message: str, request_id: str) -> str:
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    prologue = '<?xml version="1.0" encoding="UTF-8"?>'
    if service == "ec2":
        return (
            f"{prologue}<Response><Errors><Error>{error}</Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    if service == "s3":
        return f"{prologue}<Error>{error}<RequestId>{request_id}</RequestId></Error>"
    fault = "Sender" if status < 500 else "Receiver"
    return (
        f"{prologue}<ErrorResponse><Error><Type>{fault}</Type>{error}</Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
