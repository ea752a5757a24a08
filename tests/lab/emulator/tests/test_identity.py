"""Role sessions, and the check of presigned STS URLs."""

import datetime
from typing import Any

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import Emulator
from scenery import refusal, role

STS = "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"


def presigned(
    keys: dict[str, str], cluster: str = "prod", url: str = STS, expires: int = 60
) -> str:
    """A token's URL, as the AWS CLI signs it."""
    credentials = Credentials(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("SessionToken")
    )
    request = AWSRequest("GET", url, headers={"x-k8s-aws-id": cluster})
    SigV4QueryAuth(credentials, "sts", "us-east-1", expires=expires).add_auth(request)
    return request.url


def session(emulator: Emulator, name: str = "i-0123456789abcdef0") -> dict[str, str]:
    """Credentials of a node role's session."""
    arn = role(emulator, "session-node", "ec2.amazonaws.com")
    answer = emulator.client("sts").assume_role(RoleArn=arn, RoleSessionName=name)
    return answer["Credentials"]


def operator(emulator: Emulator) -> dict[str, str]:
    """The operator's keys in STS's spelling."""
    return {
        "AccessKeyId": emulator.greeting["accessKeyId"],
        "SecretAccessKey": emulator.greeting["secretAccessKey"],
    }


def whoami(emulator: Emulator, url: str, cluster: str = "prod") -> tuple[int, Any]:
    """Asks the control API."""
    body = {"url": url, "headers": {"x-k8s-aws-id": cluster}}
    return emulator.control_raw("POST", "whoami", body)


def test_a_session_is_known_by_its_instance(emulator: Emulator) -> None:
    keys = session(emulator)
    arn = "arn:aws:sts::123456789012:assumed-role/session-node/i-0123456789abcdef0"
    assert emulator.client("sts", keys).get_caller_identity()["Arn"] == arn
    status, answer = whoami(emulator, presigned(keys))
    assert (status, answer["arn"], answer["account"]) == (200, arn, "123456789012")
    assert answer["userId"].endswith(":i-0123456789abcdef0")


def test_the_operator_is_known(emulator: Emulator) -> None:
    status, answer = whoami(emulator, presigned(operator(emulator)))
    assert (status, answer["arn"]) == (200, "arn:aws:iam::123456789012:user/operator")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), "SignatureDoesNotMatch"),
        (lambda url: url.replace("sts.us-east-1", "sts.eu-west-1"), "SignatureDoesNotMatch"),
        (lambda url: url.replace("GetCallerIdentity", "AssumeRole"), "InvalidAction"),
        (lambda url: url.replace("AKIAROLLCALLOPERATOR", "AKIA0000000000000000"), "InvalidClient"),
    ],
)
def test_a_forged_url_is_refused(emulator: Emulator, change: Any, reason: str) -> None:
    status, answer = whoami(emulator, change(presigned(operator(emulator))))
    assert status == 403
    assert reason in answer["error"]


def test_another_cluster_breaks_the_signature(emulator: Emulator) -> None:
    status, answer = whoami(emulator, presigned(operator(emulator), cluster="prod"), "staging")
    assert (status, answer["error"][:21]) == (403, "SignatureDoesNotMatch")


def test_a_session_without_its_token_is_refused(emulator: Emulator) -> None:
    keys = {**session(emulator), "SessionToken": None}
    assert whoami(emulator, presigned(keys))[0] == 403
    with refusal("InvalidClientTokenId"):
        emulator.client("sts", keys).get_caller_identity()


@pytest.mark.parametrize(("minutes", "status"), [(-14, 200), (-16, 403), (6, 403)])
def test_a_url_lives_fifteen_minutes(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, minutes: int, status: int
) -> None:
    import botocore.auth

    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    assert whoami(emulator, presigned(operator(emulator)))[0] == status


def test_more_than_fifteen_minutes_cannot_be_asked_for(emulator: Emulator) -> None:
    assert whoami(emulator, presigned(operator(emulator), expires=901))[0] == 403


def test_a_role_that_does_not_exist_cannot_be_assumed(emulator: Emulator) -> None:
    with refusal("AccessDenied", "sts:AssumeRole"):
        emulator.client("sts").assume_role(
            RoleArn="arn:aws:iam::123456789012:role/nobody", RoleSessionName="nobody"
        )


