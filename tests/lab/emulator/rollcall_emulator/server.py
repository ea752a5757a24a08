"""One request's way: control API, or classify -> fault rules -> credentials -> rights -> moto ->
journal.

AWS calls are served one at a time (moto has no locks, and our transitions run between calls);
bodies are read and delays slept outside the lock, and the control API never waits for it.
"""

import json
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.serving import BaseWSGIServer, make_server

from . import account, errors, faults
from .authorization import Authorizer
from .control import ControlApi
from .identity import Directory
from .request import Call, classify, read_body
from .world import World

RESPONSE_CODE_LIMIT = 400
SERVER_ERROR = 500


class Application:
    """The WSGI application."""

    def __init__(self, world: World, directory: Directory, ready: threading.Event) -> None:
        self.world = world
        self.directory = directory
        self.authorizer = Authorizer(world)
        self.control = ControlApi(world, directory)
        self.ready = ready
        self._aws: Any = None
        self._answers: dict[Any, errors.Response] = {}

    def mount(self, aws: Any) -> None:
        """Puts moto's dispatcher behind the front door."""
        self._aws = aws

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = read_body(environ)
        self.ready.wait()
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_control/"):
            status, answer = self.control.handle(environ, path, body)
            payload = json.dumps(answer).encode()
            return _send(start_response, status, [("Content-Type", "application/json")], payload)
        return self._aws_call(environ, start_response, body)

    def _aws_call(
        self, environ: dict[str, Any], start_response: Any, body: bytes
    ) -> Iterable[bytes]:
        call = classify(environ, body)
        principal = self.directory.find(call.access_key)
        caller = principal.arn if principal else "anonymous"
        with self.world.lock:
            about = account.resource_of(self.world, call.params)
        user_agent = environ.get("HTTP_X_AMZ_USER_AGENT") or environ.get("HTTP_USER_AGENT", "")
        entry = self.world.journal.open(
            call.service, call.op, call.params, caller, about, user_agent
        )
        rule = self.world.rules.strike(call.service, call.op, entry["params"], caller, about)
        if rule and rule.get("delay_ms"):
            time.sleep(rule["delay_ms"] / 1000)
        if rule and rule["action"] == "reset":
            self.world.journal.close(entry, 0, None, "reset")
            _cut(environ)
        answer = (
            self._injected(call, rule)
            or self.world.limits.refuse(call.service, call.op)
            or self.directory.refuse(call, environ, body)
        )
        if answer is None:
            with self.world.lock:
                answer = self.authorizer.refuse(call, principal) or self._one_behind(
                    call, rule, self._serve(call, environ)
                )
        status, headers, payload = answer
        if rule and rule["action"] == "corrupt":
            payload = faults.corrupted(payload)
            headers = [h for h in headers if not h[0].lower().startswith("x-amz-checksum-")]
        self.world.journal.close(
            entry, status, _error_code(status, payload), rule["action"] if rule else None
        )
        if rule and rule["action"] == "hold":
            self.world.held.wait(entry["n"])
        if rule and rule["action"] in ("reset_after", "hold"):
            _cut(environ)
        return _send(start_response, status, headers, payload)

    def _one_behind(
        self, call: Call, rule: dict[str, Any] | None, answer: errors.Response
    ) -> errors.Response:
        """Keeps a read's answer; a `stale` rule gives the one before, which may be that there was
        nothing: else a name that is used again would show what bore it in an earlier life."""
        failed = answer[0] >= SERVER_ERROR
        if failed or not faults.is_read(call.op) or call.service in ("s3", "sts"):
            return answer
        key = (call.service, call.op, repr(sorted(call.params.items())))
        before = self._answers.get(key)
        self._answers[key] = answer
        stale = rule is not None and rule["action"] == "stale"
        return before if stale and before is not None else answer

    @staticmethod
    def _injected(call: Call, rule: dict[str, Any] | None) -> errors.Response | None:
        if rule and rule["action"] == "throttle":
            return errors.throttle(call.service)
        if rule and rule["action"] == "error":
            return errors.render(
                call.service,
                rule.get("status", 500),
                rule.get("code", "InternalError"),
                rule.get("message", "An internal error has occurred"),
            )
        return None

    def _serve(self, call: Call, environ: dict[str, Any]) -> errors.Response:
        try:
            return self._moto(environ)
        except NotImplementedError as error:
            message = f"The emulator does not implement this: {error}"
            return errors.render(call.service, 400, "UnsupportedOperation", message)
        except Exception as error:  # A bug of the emulator's must not look like anything else.
            traceback.print_exc(file=sys.stderr)
            message = f"The emulator failed in {call.service} {call.op}: {error!r}"
            return errors.render(call.service, 500, "InternalFailure", message)

    def _moto(self, environ: dict[str, Any]) -> errors.Response:
        captured: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], _exc: Any = None) -> None:
            captured["status"] = int(status.split(" ", 1)[0])
            captured["headers"] = list(headers)

        result = self._aws(environ, start)
        try:
            payload = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        return captured["status"], captured["headers"], payload


def _send(
    start_response: Any, status: int, headers: list[tuple[str, str]], payload: bytes
) -> Iterable[bytes]:
    if not any(name.lower() == "content-length" for name, _ in headers):
        headers = [*headers, ("Content-Length", str(len(payload)))]
    start_response(f"{status} {HTTP_STATUS_CODES.get(status, 'Unknown')}", headers)
    return [payload]


def _cut(environ: dict[str, Any]) -> None:
    """Resets the connection: the client sees it at once, with no answer."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The handler's files keep the descriptor open: only a shutdown is seen at once.
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("cut by a fault rule")


def _error_code(status: int, payload: bytes) -> str | None:
    """The modelled error code of an answer, for the journal."""
    if status < RESPONSE_CODE_LIMIT:
        return None
    text = payload[:2000].decode("utf-8", "replace")
    for opening, closing in (("<Code>", "</Code>"), ('"__type": "', '"'), ('"__type":"', '"')):
        if opening in text:
            return text.split(opening, 1)[1].split(closing, 1)[0].split("#")[-1]
    return None


def listen(application: Application, port: int) -> BaseWSGIServer:
    """Binds the port; requests wait until the application is ready."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class QuietHandler(MotoRequestHandler):
        """moto's handler without an access log: the journal is ours."""

        def log_request(self, *_args: Any, **_kwargs: Any) -> None:
            return

        def connection_dropped(self, *_args: Any, **_kwargs: Any) -> None:
            return

    return make_server("127.0.0.1", port, application, threaded=True, request_handler=QuietHandler)


def dispatcher() -> Any:
    """moto's application."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)
