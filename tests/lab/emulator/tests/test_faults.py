"""Fault rules and the journal."""

import threading
import time

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from conftest import Emulator
from scenery import refusal

THROTTLES = [
    ("ec2", "DescribeVpcs", "describe_vpcs", "RequestLimitExceeded", 503),
    ("iam", "ListRoles", "list_roles", "Throttling", 400),
    ("ssm", "DescribeParameters", "describe_parameters", "ThrottlingException", 400),
    ("eks", "ListClusters", "list_clusters", "ThrottlingException", 429),
]


@pytest.mark.parametrize(("service", "op", "method", "code", "status"), THROTTLES)
def test_a_throttle_speaks_the_services_language(
    emulator: Emulator, service: str, op: str, method: str, code: str, status: int
) -> None:
    rule = {"service": service, "op": op, "action": "throttle", "times": 1}
    emulator.control("POST", "rules", rule)
    client = emulator.client(service)
    with pytest.raises(ClientError) as caught:
        getattr(client, method)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    getattr(client, method)()
    assert emulator.control("GET", "rules") == []


def test_the_sdk_retries_throttles_and_500s(emulator: Emulator) -> None:
    rules = [
        {"service": "ec2", "op": "DescribeVpcs", "action": "throttle", "times": 1},
        {"service": "ec2", "op": "DescribeVpcs", "action": "error", "status": 500, "times": 1},
    ]
    assert len(emulator.control("POST", "rules", rules)["ids"]) == 2
    patient = Config(retries={"total_max_attempts": 4, "mode": "standard"})
    emulator.client("ec2", config=patient).describe_vpcs()


def test_reset_loses_the_call_and_reset_after_only_its_answer(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    before = len(ec2.describe_vpcs()["Vpcs"])
    for action, made in (("reset", 0), ("reset_after", 1)):
        rule = {"service": "ec2", "op": "CreateVpc", "action": action, "times": 1}
        emulator.control("POST", "rules", rule)
        with pytest.raises((ConnectionClosedError, ConnectionResetError)):
            ec2.create_vpc(CidrBlock="10.77.0.0/16")
        assert len(ec2.describe_vpcs()["Vpcs"]) == before + made


def test_error_rules_name_their_code_and_can_pick_a_caller(emulator: Emulator) -> None:
    rule = {
        "service": "ec2", "op": "DescribeInstances", "action": "error", "status": 400,
        "code": "InvalidInstanceID.NotFound", "message": "not yet", "caller": ":user/operator",
    }  # fmt: skip
    emulator.control("POST", "rules", rule)
    with refusal("InvalidInstanceID.NotFound", "not yet"):
        emulator.client("ec2").describe_instances()
    emulator.control("DELETE", "rules")
    emulator.control("POST", "rules", {**rule, "caller": ":role/nobody"})
    emulator.client("ec2").describe_instances()


def test_delay_holds_one_call_and_no_other(emulator: Emulator) -> None:
    rule = {"service": "iam", "op": "ListRoles", "action": "delay", "delay_ms": 300, "times": 1}
    emulator.control("POST", "rules", rule)
    started = time.monotonic()
    emulator.client("iam").list_roles()
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "explode"},
        {"service": "ec2"},
        {"action": "throttle", "tiems": 2},
        {"action": "throttle", "times": 0},
        "throttle",
    ],
)
def test_a_rule_that_means_nothing_is_refused(emulator: Emulator, rule: object) -> None:
    status, answer = emulator.control_raw("POST", "rules", rule)
    assert status == 400, answer
    assert emulator.control("GET", "rules") == []


def test_one_rule_can_be_lifted(emulator: Emulator) -> None:
    rules = [{"op": op, "action": "throttle"} for op in ("CreateVpc", "CreateSubnet")]
    first, _second = emulator.control("POST", "rules", rules)["ids"]
    emulator.control("DELETE", f"rules?id={first}")
    assert [rule["op"] for rule in emulator.control("GET", "rules")] == ["CreateSubnet"]


def test_the_journal_has_every_call_in_order(emulator: Emulator) -> None:
    since = len(emulator.control("GET", "calls"))
    ec2 = emulator.client("ec2")
    ec2.describe_vpcs()
    with refusal("InvalidVpcID.NotFound"):
        ec2.describe_vpcs(VpcIds=["vpc-00000000000000000"])
    emulator.client("eks").list_clusters()
    calls = emulator.control("GET", f"calls?since={since}")
    assert [(c["service"], c["op"], c["status"]) for c in calls] == [
        ("ec2", "DescribeVpcs", 200),
        ("ec2", "DescribeVpcs", 400),
        ("eks", "ListClusters", 200),
    ]
    assert calls[1]["code"] == "InvalidVpcID.NotFound"
    assert calls[1]["params"]["VpcId.1"] == "vpc-00000000000000000"
    assert calls[0]["caller"] == "arn:aws:iam::123456789012:user/operator"
    assert [c["n"] for c in calls] == list(range(since + 1, since + 4))


def test_a_rule_can_pick_one_call_out_of_a_run(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.78.0.0/16", TagSpecifications=[
        {"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "picked"}]}
    ])["Vpc"]["VpcId"]
    rule = {
        "service": "ec2", "op": "ModifyVpcAttribute", "resource": "picked", "skip": 1,
        "action": "error", "status": 400, "code": "Picked", "times": 1,
    }  # fmt: skip
    emulator.control("POST", "rules", rule)

    def modify() -> None:
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})

    modify()
    with refusal("Picked"):
        modify()
    modify()
    assert emulator.control("GET", "calls")[-1]["resource"] == "picked"
    ec2.delete_vpc(VpcId=vpc)


def test_a_held_call_took_effect_and_is_not_answered(emulator: Emulator) -> None:
    rule = {"service": "ec2", "op": "CreateVpc", "action": "hold", "times": 1}
    emulator.control("POST", "rules", rule)
    ec2 = emulator.client("ec2")
    before = emulator.control("GET", "account")
    ended: list[Exception] = []

    def create() -> None:
        try:
            ec2.create_vpc(CidrBlock="10.79.0.0/16")
        except (ConnectionClosedError, ConnectionResetError) as error:
            ended.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    assert len(emulator.control("GET", "held?wait=10")) == 1
    made = set(emulator.control("GET", "account")) - set(before)
    assert "vpc vpc 10.79.0.0/16" in made, made
    assert not ended
    emulator.control("DELETE", "held")
    thread.join(10)
    assert ended and emulator.control("GET", "held") == []


def test_a_stale_read_is_one_behind(emulator: Emulator) -> None:
    rule = {"service": "ec2", "action": "stale", "reads": True}
    ec2 = emulator.client("ec2")
    before = len(ec2.describe_vpcs()["Vpcs"])
    emulator.control("POST", "rules", rule)
    ec2.create_vpc(CidrBlock="10.80.0.0/16")
    assert len(ec2.describe_vpcs()["Vpcs"]) == before
    assert len(ec2.describe_vpcs()["Vpcs"]) == before + 1


def test_a_stale_read_shows_nothing_of_an_earlier_life(emulator: Emulator) -> None:
    iam = emulator.client("iam")

    def make(description: str) -> None:
        iam.create_role(
            RoleName="twice", Description=description, AssumeRolePolicyDocument='{"Statement": []}'
        )

    make("first")
    assert iam.get_role(RoleName="twice")["Role"]["Description"] == "first"
    iam.delete_role(RoleName="twice")
    with refusal("NoSuchEntity"):
        iam.get_role(RoleName="twice")
    emulator.control("POST", "rules", {"service": "iam", "action": "stale", "reads": True})
    make("second")
    with refusal("NoSuchEntity"):
        iam.get_role(RoleName="twice")
    assert iam.get_role(RoleName="twice")["Role"]["Description"] == "second"
    iam.delete_role(RoleName="twice")


def test_a_change_of_an_object_stands_among_the_calls_and_rules_strike_it(
    emulator: Emulator,
) -> None:
    rule = {"service": "kubernetes", "op": "PatchDaemonSet", "resource": "plugin", "times": 1}
    emulator.control("POST", "rules", {**rule, "action": "reset_after"})
    change = {"op": "PatchDaemonSet", "resource": "plugin", "caller": "arn:aws:iam::1:user/o"}
    since = len(emulator.control("GET", "calls"))
    other = emulator.control("POST", "kubernetes", {**change, "resource": "other"})
    struck = emulator.control("POST", "kubernetes", change)
    again = emulator.control("POST", "kubernetes", change)
    actions = [answer["action"] for answer in (other, struck, again)]
    assert actions == [None, "reset_after", None]
    calls = emulator.control("GET", f"calls?since={since}")
    assert [(c["service"], c["resource"]) for c in calls] == [
        ("kubernetes", "other"), ("kubernetes", "plugin"), ("kubernetes", "plugin"),
    ]  # fmt: skip
    assert struck["n"] == calls[1]["n"]
