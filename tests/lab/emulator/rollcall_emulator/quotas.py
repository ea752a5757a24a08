"""Service Quotas: the account's limits by name, as far as fleets meet them. What is allowed is told
and not enforced: launches that exceed a quota are a fault rule's to refuse."""

import json
from typing import Any

from .world import World

PLENTY = 1_000_000.0
# service, code, name, value
QUOTAS = (
    (
        "ec2",
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        PLENTY,
    ),
    ("ec2", "L-417A185B", "Running On-Demand P instances", PLENTY),
    ("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances", PLENTY),
    ("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests", PLENTY),
    ("ec2", "L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", PLENTY),
    ("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5.0),
    ("vpc", "L-F678F1CE", "VPCs per Region", 5.0),
    ("vpc", "L-FE5A380F", "NAT gateways per Availability Zone", 5.0),
)
# Small pages, so that whoever reads one alone sees too little.
PAGE = 3


class Quotas:
    """The account's quotas."""

    def __init__(self) -> None:
        self.values = {name: value for _service, _code, name, value in QUOTAS}

    def change(self, values: dict[str, float]) -> None:
        """Sets quotas by name."""
        for name, value in values.items():
            if name not in self.values:
                raise KeyError(name)
            self.values[name] = float(value)

    def of(self, service: str) -> list[dict[str, Any]]:
        """The wire form of a service's quotas."""
        return [
            {
                "ServiceCode": code_of_service,
                "QuotaCode": code,
                "QuotaName": name,
                "Value": self.values[name],
                "Adjustable": True,
            }
            for code_of_service, code, name, _value in QUOTAS
            if code_of_service == service
        ]


def install(world: World) -> Quotas:
    """Adds the operation to moto's Service Quotas."""
    from moto.servicequotas.responses import ServiceQuotasResponse

    store = Quotas()

    def list_service_quotas(self: Any) -> str:
        params = json.loads(self.body)
        quotas = store.of(str(params.get("ServiceCode")))
        start = int(params.get("NextToken") or 0)
        answer: dict[str, Any] = {"Quotas": quotas[start : start + PAGE]}
        if start + PAGE < len(quotas):
            answer["NextToken"] = str(start + PAGE)
        return json.dumps(answer)

    ServiceQuotasResponse.list_service_quotas = list_service_quotas
    return store
