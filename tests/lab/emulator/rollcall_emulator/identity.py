"""Who calls: the operator, IAM users and role sessions; and the check of presigned STS URLs that
EKS's token webhook makes."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from . import errors, sigv4
from .request import Call
from .world import ACCOUNT, REGION, World

OPERATOR_KEY = "AKIAROLLCALLOPERATOR"
# STS honours a presigned GetCallerIdentity for 15 minutes, whatever X-Amz-Expires says.
PRESIGNED_LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = timedelta(minutes=5)
# How far a signed request's date may be from ours; S3 is more patient.
REQUEST_SKEW = timedelta(minutes=5)
S3_REQUEST_SKEW = timedelta(minutes=15)

INVALID_TOKEN = "The security token included in the request is invalid."
# How each service says "unknown key" and "expired session".
UNKNOWN_KEY = {
    "ec2": (401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
    "ssm": (400, "UnrecognizedClientException", INVALID_TOKEN),
    "eks": (403, "UnrecognizedClientException", INVALID_TOKEN),
    "s3": (
        403,
        "InvalidAccessKeyId",
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
}
WRONG_SIGNATURE = {
    "ec2": (401, "AuthFailure"),
    "ssm": (400, "InvalidSignatureException"),
    "eks": (403, "InvalidSignatureException"),
}
EXPIRED = {
    "ec2": (400, "RequestExpired", "Request has expired."),
    "ssm": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "eks": (403, "ExpiredTokenException", "The security token included in the request is expired"),
    "s3": (400, "ExpiredToken", "The provided token has expired."),
}


@dataclass(frozen=True)
class Principal:
    """Somebody with credentials."""

    arn: str
    user_id: str
    secret: str
    role_name: str | None = None
    session_name: str | None = None
    session_token: str | None = None
    expires: datetime | None = None

    @property
    def instance_id(self) -> str | None:
        """The instance whose role session this is; its name is the instance's id."""
        name = self.session_name or ""
        return name if name.startswith("i-") else None


class Refused(Exception):
    """A presigned URL that STS would not honour; the text is the reason."""


class Directory:
    """Access key -> principal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operator_secret = secrets.token_urlsafe(30)
        self._sessions: dict[str, Principal] = {}

    def install(self) -> None:
        """Makes the operator, and has STS tell us of every role session."""
        from moto.iam.models import AccessKey

        user = self.world.iam.create_user(REGION, "operator")
        key = AccessKey("operator", prefix="AKIA", account_id=ACCOUNT)
        key.access_key_id = OPERATOR_KEY
        key.secret_access_key = self.operator_secret
        user.access_keys.append(key)
        self.world.iam.access_keys[OPERATOR_KEY] = key

    def remember(self, role: Any) -> None:
        """Registers a role session that STS has handed out."""
        self._sessions[role.access_key_id] = Principal(
            arn=role.arn,
            user_id=role.user_id,
            secret=role.secret_access_key,
            role_name=role.role_arn.split("/")[-1],
            session_name=role.session_name,
            session_token=role.session_token,
            expires=role.expiration.replace(tzinfo=UTC),
        )

    def find(self, access_key: str | None) -> Principal | None:
        """The principal behind an access key."""
        if not access_key:
            return None
        if session := self._sessions.get(access_key):
            return session
        user = self.world.iam.get_user_from_access_key_id(access_key)
        if not user:
            return None
        key = next(k for k in user.access_keys if k.access_key_id == access_key)
        return Principal(arn=user.arn, user_id=user.id, secret=key.secret_access_key)

    def refuse(self, call: Call, environ: dict[str, Any], body: bytes) -> errors.Response | None:
        """The front door: an answer for callers whose credentials AWS would not accept."""
        if not call.signed:
            if call.service == "s3":
                return errors.render("s3", 403, "AccessDenied", "Access Denied")
            message = "Request is missing Authentication Token"
            return errors.render(call.service, 403, "MissingAuthenticationToken", message)
        principal = self.find(call.access_key)
        if principal is None or principal.session_token != call.session_token:
            default = (403, "InvalidClientTokenId", INVALID_TOKEN)
            unknown = UNKNOWN_KEY.get(call.service, default)
            return errors.render(call.service, *unknown)
        if principal.expires and principal.expires < datetime.now(UTC):
            message = "The security token included in the request is expired"
            return errors.render(
                call.service, *EXPIRED.get(call.service, (403, "ExpiredToken", message))
            )
        return _check_signature(call, environ, body, principal.secret)

    def whoami(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        """The identity that STS would state for a presigned GetCallerIdentity, or `Refused`."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if query.get("Action") != "GetCallerIdentity":
            raise Refused("InvalidAction: the URL does not ask for GetCallerIdentity")
        if query.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
            raise Refused("IncompleteSignature: the URL is not presigned with SigV4")
        access_key, _, scope = query.get("X-Amz-Credential", "").partition("/")
        principal = self.find(access_key)
        if principal is None or query.get("X-Amz-Security-Token") != principal.session_token:
            raise Refused("InvalidClientTokenId: the security token in the request is invalid")
        signed = sigv4.Signed(
            method="GET",
            path=parts.path,
            query=parts.query,
            headers={"host": parts.netloc, **{k.lower(): v for k, v in headers.items()}},
            signed_headers=query.get("X-Amz-SignedHeaders", "").split(";"),
            payload_hash=sigv4.EMPTY,
            date=query.get("X-Amz-Date", ""),
            scope=scope,
        )
        expected = signed.signature(principal.secret)
        if not hmac.compare_digest(expected, query.get("X-Amz-Signature", "")):
            raise Refused("SignatureDoesNotMatch: the calculated signature differs")
        _check_dates(query, principal)
        return {"arn": principal.arn, "account": ACCOUNT, "userId": principal.user_id}


def _check_signature(
    call: Call, environ: dict[str, Any], body: bytes, secret: str
) -> errors.Response | None:
    """Refuses a header whose signature differs; presigned requests to us stay unchecked."""
    found = sigv4.header_signed(environ, body)
    if found is None:
        return None
    signed, signature = found
    try:
        moment = datetime.strptime(signed.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        moment = datetime.min.replace(tzinfo=UTC)
    allowed = S3_REQUEST_SKEW if call.service == "s3" else REQUEST_SKEW
    if abs(moment - datetime.now(UTC)) > allowed:
        message = f"Signature expired or not yet current: {signed.date}"
    elif not hmac.compare_digest(signed.signature(secret), signature):
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )
    else:
        return None
    status, code = WRONG_SIGNATURE.get(call.service, (403, "SignatureDoesNotMatch"))
    return errors.render(call.service, status, code, message)


def _check_dates(query: dict[str, str], principal: Principal) -> None:
    now = datetime.now(UTC)
    if not query.get("X-Amz-Expires", "").isdecimal():
        raise Refused("IncompleteSignature: X-Amz-Expires is missing or malformed")
    try:
        signed = datetime.strptime(query.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ")
    except ValueError as error:
        raise Refused("IncompleteSignature: X-Amz-Date is missing or malformed") from error
    signed = signed.replace(tzinfo=UTC)
    if not 0 < int(query["X-Amz-Expires"]) <= PRESIGNED_LIFETIME.total_seconds():
        raise Refused("ValidationError: X-Amz-Expires must be between 1 and 900")
    if signed > now + CLOCK_SKEW:
        raise Refused("SignatureDoesNotMatch: signature not yet current")
    if now > signed + PRESIGNED_LIFETIME:
        raise Refused("ExpiredToken: the presigned request is older than 15 minutes")
    if principal.expires and principal.expires < now:
        raise Refused("ExpiredToken: the security token in the request is expired")
