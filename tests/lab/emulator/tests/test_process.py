"""The process: its greeting, its ends, its front door, and what it costs."""

import datetime
import os
import signal
import threading
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError
from conftest import Emulator, start, until
from scenery import refusal


def test_it_greets_with_credentials_that_work(emulator: Emulator) -> None:
    assert emulator.greeting["account"] == "123456789012"
    identity = emulator.client("sts").get_caller_identity()
    assert identity["Arn"] == "arn:aws:iam::123456789012:user/operator"
    assert identity["Account"] == "123456789012"


def test_it_ends_on_sigterm_in_the_middle_of_work(tmp_path: Path) -> None:
    emulator = start(tmp_path)
    rule = {"service": "ec2", "op": "DescribeVpcs", "action": "delay", "delay_ms": 60000}
    emulator.control("POST", "rules", rule)
    busy = threading.Thread(target=_ask_in_vain, args=(emulator,))
    busy.start()
    until(lambda: emulator.control("GET", "calls"))
    emulator.process.send_signal(signal.SIGTERM)
    assert emulator.process.wait(timeout=10) == 0
    assert not emulator.process.stdin.closed
    busy.join()


def _ask_in_vain(emulator: Emulator) -> None:
    with pytest.raises(BotoCoreError):
        emulator.client("ec2").describe_vpcs()


def test_unknown_keys_are_refused_as_each_service_does(emulator: Emulator) -> None:
    stranger = {"AccessKeyId": "AKIASTRANGERSTRANGER", "SecretAccessKey": "x"}
    with refusal("AuthFailure"):
        emulator.client("ec2", stranger).describe_vpcs()
    with refusal("UnrecognizedClientException"):
        emulator.client("eks", stranger).list_clusters()
    with refusal("UnrecognizedClientException"):
        emulator.client("ssm", stranger).describe_parameters()
    with refusal("InvalidClientTokenId"):
        emulator.client("sts", stranger).get_caller_identity()
    with refusal("InvalidAccessKeyId"):
        emulator.client("s3", stranger).list_buckets()


def test_a_wrong_secret_is_refused_as_each_service_does(emulator: Emulator) -> None:
    forger = {"AccessKeyId": emulator.greeting["accessKeyId"], "SecretAccessKey": "wrong"}
    with refusal("AuthFailure"):
        emulator.client("ec2", forger).describe_vpcs()
    with refusal("InvalidSignatureException"):
        emulator.client("eks", forger).list_clusters()
    with refusal("InvalidSignatureException"):
        emulator.client("ssm", forger).describe_parameters()
    with refusal("SignatureDoesNotMatch"):
        emulator.client("sts", forger).get_caller_identity()
    with refusal("SignatureDoesNotMatch"):
        emulator.client("s3", forger).list_buckets()


def test_a_request_of_yesterday_is_refused(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth

    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=16)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    with refusal("SignatureDoesNotMatch", "expired"):
        emulator.client("sts").get_caller_identity()


def test_what_moto_lacks_is_a_modelled_error(emulator: Emulator) -> None:
    with refusal("UnsupportedOperation"):
        emulator.client("ec2").describe_capacity_block_offerings(CapacityDurationHours=24)
    with refusal("InvalidRequestException", "does not serve"):
        emulator.client("eks").list_insights(clusterName="prod")


def test_control_endpoints_refuse_what_they_do_not_know(emulator: Emulator) -> None:
    assert emulator.control_raw("GET", "nonsense")[0] == 404
    assert emulator.control_raw("POST", "nodes", {"wrong": {}})[0] == 400


def test_two_hundred_calls_cost_little(emulator: Emulator) -> None:
    def cpu() -> float:
        fields = Path(f"/proc/{emulator.process.pid}/stat").read_text().split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    ec2, ssm = emulator.client("ec2"), emulator.client("ssm")
    ec2.describe_instance_types(InstanceTypes=["p5.48xlarge"])
    before = cpu()
    for _ in range(100):
        ec2.describe_vpcs()
        ssm.get_parameters(Names=["/nothing"])
    ec2.describe_instance_types(InstanceTypes=["p5.48xlarge"])
    assert cpu() - before < 4.0
