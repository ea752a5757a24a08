"""Signature Version 4 as a service checks it: the canonical request is built from what arrived."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^,\s]+),\s*"
    r"SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]+)"
)
EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Signed:
    """What a signature covers."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    signed_headers: list[str]
    payload_hash: str
    date: str
    scope: str

    def signature(self, secret: str) -> str:
        """The signature that this secret makes."""
        pairs = sorted(
            (quote(k, safe="-_.~"), quote(v, safe="-_.~"))
            for k, v in parse_qsl(self.query, keep_blank_values=True)
            if k != "X-Amz-Signature"
        )
        values = {k: " ".join(self.headers.get(k, "").split()) for k in self.signed_headers}
        request = "\n".join(
            [
                self.method,
                self.path or "/",
                "&".join(f"{k}={v}" for k, v in pairs),
                "".join(f"{name}:{values[name]}\n" for name in self.signed_headers),
                ";".join(self.signed_headers),
                self.payload_hash,
            ]
        )
        hashed = hashlib.sha256(request.encode()).hexdigest()
        to_sign = "\n".join(["AWS4-HMAC-SHA256", self.date, self.scope, hashed])
        key = f"AWS4{secret}".encode()
        for part in self.scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def header_signed(environ: dict[str, Any], body: bytes) -> tuple[Signed, str] | None:
    """What a request's Authorization header covers, and its signature."""
    match = AUTHORIZATION.match(environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        return None
    scope = match["credential"].partition("/")[2]
    headers = _headers(environ)
    path, _, query = environ.get("RAW_URI", "/").partition("?")
    if not scope.endswith("/s3/aws4_request"):
        # Every service but S3 encodes the path, as it was sent, once more.
        path = quote(path, safe="/~")
    signed = Signed(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=query,
        headers=headers,
        signed_headers=match["headers"].split(";"),
        payload_hash=headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest(),
        date=headers.get("x-amz-date", ""),
        scope=scope,
    )
    return signed, match["signature"]


def _headers(environ: dict[str, Any]) -> dict[str, str]:
    headers = {
        key[5:].replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    return headers
