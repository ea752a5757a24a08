"""Parameter Store: public parameters, limits, authorship."""

import time
from typing import Any

from conftest import Emulator, start
from scenery import image, refusal
from test_identity import session


def test_public_parameters_name_images_that_exist(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    for version in ("1.32", "1.33", "1.34", "1.35"):
        for variant in ("standard", "nvidia"):
            found = ec2.describe_images(ImageIds=[image(emulator, variant, version)])["Images"][0]
            assert found["Name"].startswith(f"amazon-eks-node-al2023-x86_64-{variant}-{version}-")
            assert found["OwnerId"] == "602401143452"


def test_a_standard_parameter_holds_4096_bytes(emulator: Emulator) -> None:
    ssm = emulator.client("ssm")
    ssm.put_parameter(Name="/rollcall/size/a", Value="x" * 4096, Type="String")
    with refusal("ValidationException", "4096 characters"):
        ssm.put_parameter(Name="/rollcall/size/b", Value="x" * 4097, Type="String")
    with refusal("ValidationException", "8192 characters"):
        ssm.put_parameter(
            Name="/rollcall/size/b", Value="x" * 8193, Type="String", Tier="Advanced"
        )
    answer = ssm.put_parameter(
        Name="/rollcall/size/c", Value="x" * 4097, Type="String", Tier="Intelligent-Tiering"
    )
    assert answer["Tier"] == "Advanced"


def test_json_is_no_nested_parameter(emulator: Emulator) -> None:
    ssm = emulator.client("ssm")
    ssm.put_parameter(Name="/rollcall/nest/a", Value='{"a":{"b":{}}}', Type="String")
    with refusal("ValidationException", "nest"):
        ssm.put_parameter(Name="/rollcall/nest/b", Value="{{ssm:other}}", Type="String")


def test_a_second_write_needs_overwrite_and_no_tags(emulator: Emulator) -> None:
    ssm = emulator.client("ssm")
    tags = [{"Key": "rollcall-instance", "Value": "arn"}]
    ssm.put_parameter(Name="/rollcall/twice", Value="1", Type="String", Tags=tags)
    with refusal("ParameterAlreadyExists"):
        ssm.put_parameter(Name="/rollcall/twice", Value="2", Type="String")
    with refusal("ValidationException"):
        ssm.put_parameter(Name="/rollcall/twice", Value="2", Overwrite=True, Tags=tags)
    assert ssm.put_parameter(Name="/rollcall/twice", Value="2", Overwrite=True)["Version"] == 2


def test_the_index_says_who_wrote_last(emulator: Emulator) -> None:
    keys = session(emulator, "i-0aaaaaaaaaaaaaaa1")
    emulator.client("iam").put_role_policy(
        RoleName="session-node",
        PolicyName="write",
        PolicyDocument=ALLOW_PUT,
    )
    emulator.client("ssm", keys).put_parameter(
        Name="/rollcall/by/i-0aaaaaaaaaaaaaaa1", Value="{}", Type="String", Description="v1"
    )
    found = emulator.client("ssm").describe_parameters(
        ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/rollcall/by/"]}]
    )["Parameters"]
    assert [p["LastModifiedUser"].rsplit("/", 1)[-1] for p in found] == ["i-0aaaaaaaaaaaaaaa1"]
    assert found[0]["Description"] == "v1"


ALLOW_PUT = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:PutParameter",'
    '"Resource":"arn:aws:ssm:us-east-1:123456789012:parameter/rollcall/*"}]}'
)


def test_public_parameters_are_not_in_the_index(emulator: Emulator) -> None:
    pages = emulator.client("ssm").get_paginator("describe_parameters").paginate()
    names = [p["Name"] for page in pages for p in page["Parameters"]]
    assert not [name for name in names if name.startswith("/aws/")]


def test_describe_parameters_pages_by_fifty(emulator: Emulator) -> None:
    ssm = emulator.client("ssm")
    emulator.control("POST", "limits", {"ssm:PutParameter": None})
    for n in range(60):
        ssm.put_parameter(Name=f"/rollcall/page/{n}", Value="x", Type="String")
    wanted = [{"Key": "Name", "Option": "BeginsWith", "Values": ["/rollcall/page/"]}]
    pages = list(ssm.get_paginator("describe_parameters").paginate(ParameterFilters=wanted))
    assert [len(page["Parameters"]) for page in pages] == [50, 10]
    by_path = ssm.get_paginator("get_parameters_by_path").paginate(Path="/rollcall/page/")
    assert sum(len(page["Parameters"]) for page in by_path) == 60


def test_put_parameter_is_limited_as_the_account_is(tmp_path: Any) -> None:
    emulator = start(tmp_path)
    emulator.control("POST", "limits", {"ssm:PutParameter": {"rate": 3, "burst": 3}})
    ssm = emulator.client("ssm")

    def put(n: int) -> None:
        ssm.put_parameter(Name=f"/rollcall/burst/{n}", Value="x", Type="String")

    for n in range(3):
        put(n)
    with refusal("ThrottlingException", "Rate exceeded"):
        for n in range(3, 30):
            put(n)
    time.sleep(1.1)
    put(99)
    status, answer = emulator.control_raw("POST", "limits", {"ssm:PutParameter": {"rate": 0}})
    assert status == 400, answer
    emulator.close()
