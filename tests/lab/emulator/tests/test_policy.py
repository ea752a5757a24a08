"""IAM evaluation, as a table."""

from typing import Any

import pytest
from rollcall_emulator import policy

ME = "arn:aws:ec2:us-east-1:123456789012:instance/i-1"
REPORT = "arn:aws:ssm:us-east-1:123456789012:parameter/rollcall/prod/h100/i-1"


def allow(**parts: Any) -> dict[str, Any]:
    """A policy with one Allow."""
    statement = {"Effect": "Allow", "Action": "ssm:PutParameter", "Resource": "*", **parts}
    return {"Version": "2012-10-17", "Statement": [statement]}


def when(**condition: Any) -> dict[str, Any]:
    """A policy with one condition."""
    return allow(Condition=condition)


TAGGED = {"aws:RequestTag/rollcall-instance": "${ec2:SourceInstanceARN}"}
CASES = [
    ("same action", allow(), {}, True),
    ("action ignores case", allow(Action="SSM:putparameter"), {}, True),
    ("wildcard action", allow(Action=["ec2:*", "ssm:Put*"]), {}, True),
    ("other action", allow(Action="ssm:GetParameter"), {}, False),
    ("not action", {"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}, {}, True),
    ("exact resource", allow(Resource=REPORT), {}, True),
    ("resource below", allow(Resource=REPORT.rsplit("/", 1)[0] + "/*"), {}, True),
    ("other resource", allow(Resource=REPORT + "0"), {}, False),
    ("variable in resource", allow(Resource=REPORT[:-3] + "${aws:username}"), {"aws:username": "i-1"}, True),
    ("variable without value", allow(Resource="${aws:username}*"), {}, False),
    ("equal", when(StringEquals=TAGGED), {"aws:RequestTag/rollcall-instance": ME, "ec2:SourceInstanceARN": ME}, True),
    ("unequal", when(StringEquals=TAGGED), {"aws:RequestTag/rollcall-instance": "x", "ec2:SourceInstanceARN": ME}, False),
    ("missing key", when(StringEquals=TAGGED), {"ec2:SourceInstanceARN": ME}, False),
    ("missing variable", when(StringEquals=TAGGED), {"aws:RequestTag/rollcall-instance": ME}, False),
    ("if exists, missing", when(StringEqualsIfExists={"aws:ResourceTag/a": "b"}), {}, True),
    ("if exists, wrong", when(StringEqualsIfExists={"aws:ResourceTag/a": "b"}), {"aws:ResourceTag/a": "c"}, False),
    ("null false, there", when(Null={"ec2:SourceInstanceARN": "false"}), {"ec2:SourceInstanceARN": ME}, True),
    ("null false, missing", when(Null={"ec2:SourceInstanceARN": "false"}), {}, False),
    ("null true, missing", when(Null={"a:b": "true"}), {}, True),
    ("all values", when(**{"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}), {"aws:TagKeys": ["a"]}, True),
    ("all values, one alien", when(**{"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}), {"aws:TagKeys": ["a", "c"]}, False),
    ("all values of none", when(**{"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}), {"aws:TagKeys": []}, True),
    ("any value", when(**{"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}), {"aws:TagKeys": ["a", "c"]}, True),
    ("any value of none", when(**{"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}), {}, False),
    ("like", when(StringLike={"aws:userid": "AROA*:i-*"}), {"aws:userid": "AROAX:i-1"}, True),
    ("not equals, missing", when(StringNotEquals={"a:b": "c"}), {}, True),
    ("not equals, equal", when(StringNotEquals={"a:b": "c"}), {"a:b": "c"}, False),
    ("keys ignore case", when(StringEquals={"AWS:TagKeys": "a"}), {"aws:tagkeys": "a"}, True),
    ("unknown operator", when(StringResembles={"a:b": "c"}), {"a:b": "c"}, False),
    ("both conditions", when(StringEquals={"a:b": "c"}, Null={"a:d": "false"}), {"a:b": "c"}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "context", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_evaluation(document: dict[str, Any], context: dict[str, Any], expected: bool) -> None:
    assert policy.allows([document], "ssm:PutParameter", REPORT, context) is expected


def test_deny_wins_wherever_it_stands() -> None:
    deny = {"Statement": {"Effect": "Deny", "Action": "ssm:*", "Resource": "*"}}
    assert not policy.allows([allow(), deny], "ssm:PutParameter", REPORT, {})
    assert not policy.allows([deny, allow()], "ssm:PutParameter", REPORT, {})
    assert not policy.allows([], "ssm:PutParameter", REPORT, {})
