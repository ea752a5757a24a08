"""Rate limits: what AWS publishes, for each operation by itself, where a test asks for it."""

from types import SimpleNamespace

import pytest
from rollcall_emulator import limits


def test_what_aws_publishes_is_in_force_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: clock.now))
    account = limits.Limits()

    def lets(op: str, count: int) -> int:
        return sum(account.refuse("ec2", op) is None for _ in range(count))

    assert lets("CreateVpcEndpoint", 20) == 20
    account.change({"published": True})
    assert lets("CreateVpcEndpoint", 20) == 4
    # Each operation has its own, by the first pattern that fits.
    assert lets("DescribeVpcEndpoints", 200) == 100
    assert lets("CreateRoute", 200) == 50
    clock.now = 10.0
    assert lets("CreateVpcEndpoint", 20) == 3
    account.change({"published": False})
    assert lets("CreateVpcEndpoint", 20) == 20
    # That of Parameter Store is always there.
    assert sum(account.refuse("ssm", "PutParameter") is None for _ in range(40)) == 20
