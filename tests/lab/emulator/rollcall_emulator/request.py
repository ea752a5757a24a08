"""What a request is: service, operation and parameters, found as AWS's front ends find them."""

import base64
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

CREDENTIAL = re.compile(r"Credential=([^,/\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
REST_SERVICES = {"eks", "s3"}


@dataclass
class Call:
    """One AWS call, before anything has been decided about it."""

    service: str
    op: str
    params: dict[str, Any] = field(default_factory=dict)
    access_key: str | None = None
    session_token: str | None = None
    signed: bool = False


def read_body(environ: dict[str, Any]) -> bytes:
    """Reads the whole body and puts it back, so that slow uploads never hold the lock."""
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        body = stream.read()
    else:
        body = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return body


def classify(environ: dict[str, Any], body: bytes) -> Call:
    """Names the service and operation of a request."""
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    call = _credentials(environ, query)
    target = environ.get("HTTP_X_AMZ_TARGET")
    content_type = environ.get("CONTENT_TYPE", "")
    if target:
        call.op = target.split(".")[-1]
        call.params = _json(body)
    elif content_type.startswith("application/x-www-form-urlencoded") and call.service != "s3":
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        call.op = form.pop("Action", "Unknown")
        form.pop("Version", None)
        call.params = form
    elif "Action" in query:
        call.op = query.pop("Action")
        call.params = query
    elif call.service in REST_SERVICES:
        call.op, uri_params = _rest_operation(call.service, environ)
        call.params = {**query, **uri_params}
        if call.service != "s3":
            call.params.update(_json(body))
    return call


def _credentials(environ: dict[str, Any], query: dict[str, str]) -> Call:
    header = environ.get("HTTP_AUTHORIZATION", "")
    match = CREDENTIAL.search(header) or CREDENTIAL.search(
        "Credential=" + query.get("X-Amz-Credential", "")
    )
    if not match:
        return Call(service="s3", op="Unknown")
    token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or query.get("X-Amz-Security-Token")
    return Call(
        service=match[3].lower(),
        op="Unknown",
        access_key=match[1],
        session_token=token,
        signed=True,
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _rest_operation(service: str, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from moto.core.request import Request
    from moto.core.routing import NotFound, get_service_router

    try:
        operation, params = get_service_router(service).match(Request(dict(environ)))
    except (NotFound, NotImplementedError):
        return f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}", {}
    return operation.name, dict(params)


def decoded_user_data(user_data: str | None) -> bytes:
    """User data as EC2 stores it: the raw bytes behind the base64."""
    return base64.b64decode(user_data) if user_data else b""
