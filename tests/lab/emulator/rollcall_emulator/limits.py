"""Rate limits per account and operation: a token bucket each, as AWS has them.

Parameter Store's PutParameter takes 3 calls a second for the whole account at default throughput
(docs.aws.amazon.com, Systems Manager endpoints and quotas); a burst has been seen to let 20 through.
"""

import threading
import time
from fnmatch import fnmatchcase
from typing import Any

from . import errors

DEFAULT = {"ssm:PutParameter": (3.0, 20.0)}
# What AWS publishes, calls a second and at once, the first that fits (Amazon EC2 API throttling,
# account level; Systems Manager endpoints and quotas). Off unless asked for: a lab's many lives share
# one account. EKS and IAM publish none.
PUBLISHED = (
    ("ec2:CreateVpcEndpoint", 0.3, 4.0),
    ("ec2:DeleteVpcEndpoints", 0.3, 4.0),
    ("ec2:ModifyVpcEndpoint", 0.3, 4.0),
    ("ec2:CreateNatGateway", 1.0, 10.0),
    ("ec2:DeleteNatGateway", 1.0, 10.0),
    ("ec2:CreateTags", 10.0, 100.0),
    ("ec2:DeleteTags", 10.0, 100.0),
    ("ec2:Describe*", 20.0, 100.0),
    ("ec2:Get*", 20.0, 100.0),
    ("ec2:*", 5.0, 50.0),
    ("ssm:PutParameter", 3.0, 3.0),
    ("ssm:Get*", 40.0, 40.0),
)
# How many there may be of a thing (docs.aws.amazon.com, Amazon EKS endpoints and quotas).
QUOTAS = {"eks:nodegroups": 30}


class Limits:
    """The buckets; a call without one is not limited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, float]] = {}
        self._published = False
        self.quotas = dict(QUOTAS)
        self._publish(False)

    def _publish(self, published: bool) -> None:
        self._published = published
        self._buckets.clear()
        for name, (rate, burst) in () if published else DEFAULT.items():
            self._set(name, rate, burst)

    def _set(self, name: str, rate: float, burst: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a limit has a rate above 0 and a burst of 1 or more")
        self._buckets[name] = {
            "rate": rate, "burst": burst, "tokens": burst, "at": time.monotonic()
        }  # fmt: skip

    def change(self, limits: dict[str, Any]) -> None:
        """Sets limits, `{"ssm:PutParameter": {"rate": 3, "burst": 3}}`; null takes one away. A number
        is a quota, `{"eks:nodegroups": 100}`, as Service Quotas raises it. `{"published": true}` puts
        in force what AWS publishes, for each operation by itself."""
        with self._lock:
            for name, limit in limits.items():
                if name == "published":
                    self._publish(bool(limit))
                elif name in self.quotas:
                    self.quotas[name] = int(limit)
                elif limit is None:
                    self._buckets.pop(name, None)
                else:
                    self._set(name, float(limit["rate"]), float(limit["burst"]))

    def _bucket(self, name: str) -> dict[str, float] | None:
        if self._published and name not in self._buckets:
            for pattern, rate, burst in PUBLISHED:
                if fnmatchcase(name, pattern):
                    self._set(name, rate, burst)
                    break
        return self._buckets.get(name)

    def refuse(self, service: str, op: str) -> errors.Response | None:
        """The refusal when the bucket is empty; else a token is taken."""
        with self._lock:
            bucket = self._bucket(f"{service}:{op}")
            if bucket is None:
                return None
            now = time.monotonic()
            filled = bucket["tokens"] + (now - bucket["at"]) * bucket["rate"]
            bucket["tokens"] = min(bucket["burst"], filled)
            bucket["at"] = now
            if bucket["tokens"] < 1:
                return errors.throttle(service)
            bucket["tokens"] -= 1
            return None
