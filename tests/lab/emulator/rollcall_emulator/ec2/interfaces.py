"""What EC2 refuses of a launch's network interfaces: cards and EFA that the type does not have."""

from collections import Counter
from typing import Any

from .errors import ec2_error


def check(instance_type: str, interfaces: list[dict[str, Any]]) -> None:
    """Refuses interfaces that the instance type cannot have."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    network = INSTANCE_TYPES[instance_type].get("NetworkInfo", {})
    cards = {card["NetworkCardIndex"]: card for card in network.get("NetworkCards", [])}
    places = Counter(
        (int(one.get("NetworkCardIndex") or 0), int(one.get("DeviceIndex") or 0))
        for one in interfaces
    )
    for (card, device), count in places.items():
        if count > 1:
            raise _invalid(f"Network card {card} has two interfaces of device index {device}")
        if card not in cards:
            raise _invalid(f"Network card index {card} exceeds what {instance_type} supports")
        if card != 0 and device == 0:
            raise _invalid("Device index 0 is the primary interface's, on network card 0")
    efa = [one for one in interfaces if str(one.get("InterfaceType")).startswith("efa")]
    for one in efa:
        card, kind = int(one.get("NetworkCardIndex") or 0), one["InterfaceType"]
        if kind not in cards[card].get("InterfaceTypes", []):
            raise _invalid(f"Network card {card} of {instance_type} does not support {kind}")
        if kind == "efa-only" and int(one.get("DeviceIndex") or 0) == 0 and card == 0:
            raise _invalid("The primary interface cannot be EFA-only")
    most = (network.get("EfaInfo") or {}).get("MaximumEfaInterfaces", 0)
    if len(efa) > most:
        raise ec2_error(
            "AttachmentLimitExceeded",
            f"Interface count {len(efa)} exceeds the limit of EFA interfaces for {instance_type}",
        )


def _invalid(message: str) -> Exception:
    return ec2_error("InvalidParameterValue", f"{message}.")
