"""Networks: NAT gateways that take time, and the refusals that make teardown order matter."""

import itertools
from typing import Any

from .. import durations
from ..patching import override
from ..world import World
from .errors import dependency_violation, ec2_error

PUBLIC_ADDRESSES = itertools.count()


def install(world: World) -> None:
    """Extends moto's VPC resources."""
    _nat_gateways(world)
    _addresses_and_gateways()
    _subnets_and_vpcs()
    _security_groups()
    _interfaces()


def _nat_gateways(world: World) -> None:
    from moto.ec2.models import EC2Backend
    from moto.ec2.utils import generic_filter

    @override(EC2Backend, "create_nat_gateway")
    def create_nat_gateway(
        original: Any, self: Any, subnet_id: str, allocation_id: str, **kwargs: Any
    ) -> Any:
        self.get_subnet(subnet_id)
        kwargs["connectivity_type"] = kwargs.get("connectivity_type") or "public"
        gateway = original(self, subnet_id, allocation_id, **kwargs)
        interface = gateway._eni
        interface.description = f"Interface for NAT Gateway {gateway.id}"
        interface.requester_managed = True
        interface.status = "in-use"
        address = interface.subnet.get_available_subnet_ip(gateway)
        interface.private_ip_address = gateway.private_ip = address
        gateway.address_set[0]["privateIp"] = address
        gateway.state = "pending"

        def available() -> None:
            if gateway.state == "pending":
                gateway.state = "available"

        world.clock.after(durations.NAT_CREATE, available)
        return gateway

    @override(EC2Backend, "describe_nat_gateways")
    def describe_nat_gateways(original: Any, self: Any, filters: Any, ids: list[str]) -> Any:
        for nat_gateway_id in ids or []:
            if nat_gateway_id not in self.nat_gateways:
                raise _no_nat_gateway(nat_gateway_id)
        # moto knows no tag filter here, and answers with every gateway.
        tagged = {k: v for k, v in (filters or {}).items() if k.startswith("tag")}
        return generic_filter(tagged, original(self, filters, ids))

    @override(EC2Backend, "create_route")
    def create_route(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        nat_gateway_id = kwargs.get("nat_gateway_id")
        if nat_gateway_id and nat_gateway_id not in self.nat_gateways:
            raise ec2_error(
                "InvalidNatGatewayID.NotFound",
                f"The natGateway ID '{nat_gateway_id}' does not exist",
            )
        return original(self, *args, **kwargs)

    @override(EC2Backend, "delete_nat_gateway")
    def delete_nat_gateway(_original: Any, self: Any, nat_gateway_id: str) -> Any:
        gateway = self.nat_gateways.get(nat_gateway_id)
        if gateway is None or gateway.state == "deleted":
            raise _no_nat_gateway(nat_gateway_id)
        if gateway.state == "deleting":
            return gateway
        gateway.state = "deleting"

        def deleted() -> None:
            gateway.state = "deleted"
            interface = gateway._eni
            interface.subnet.del_subnet_ip(interface.private_ip_address)
            self.enis.pop(interface.id, None)
            for address in list(self.addresses):
                if address.eni is interface:
                    self.disassociate_address(address=address.public_ip)

        world.clock.after(durations.NAT_DELETE, deleted)
        return gateway


def _no_nat_gateway(nat_gateway_id: str) -> Exception:
    return ec2_error("NatGatewayNotFound", f"The Nat Gateway {nat_gateway_id} was not found")


def _addresses_and_gateways() -> None:
    from moto.ec2.models import EC2Backend

    @override(EC2Backend, "allocate_address")
    def allocate_address(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        address = original(self, *args, **kwargs)
        # moto draws from 127.0.0.0/8, which no rule about public addresses would accept.
        number = next(PUBLIC_ADDRESSES)
        address.public_ip = f"52.20.{number // 250}.{number % 250 + 1}"
        return address

    @override(EC2Backend, "release_address")
    def release_address(
        original: Any, self: Any, address: str | None = None, allocation_id: str | None = None
    ) -> None:
        found = self.address_by_ip([address]) if address else None
        found = (found or self.address_by_allocation([allocation_id]))[0]
        if found.association_id:
            raise ec2_error("InvalidIPAddress.InUse", f"Address {found.public_ip} is in use.")
        original(self, address=address, allocation_id=allocation_id)

    @override(EC2Backend, "detach_internet_gateway")
    def detach_internet_gateway(
        original: Any, self: Any, internet_gateway_id: str, vpc_id: str
    ) -> None:
        mapped = [e for e in list(self.enis.values()) if e.vpc_id == vpc_id and e.public_ip]
        if mapped:
            raise ec2_error(
                "DependencyViolation",
                f"Network {vpc_id} has some mapped public address(es). Please unmap those public "
                "address(es) before detaching the gateway.",
            )
        original(self, internet_gateway_id, vpc_id)


def _subnets_and_vpcs() -> None:
    from moto.ec2.models import EC2Backend

    @override(EC2Backend, "delete_subnet")
    def delete_subnet(original: Any, self: Any, subnet_id: str) -> Any:
        self.get_subnet(subnet_id)
        if any(e.subnet.id == subnet_id for e in list(self.enis.values())):
            raise dependency_violation("subnet", subnet_id)
        return original(self, subnet_id)

    @override(EC2Backend, "delete_vpc")
    def delete_vpc(original: Any, self: Any, vpc_id: str) -> Any:
        self.get_vpc(vpc_id)
        groups = [g for g in self.groups.get(vpc_id, {}).values() if g.name != "default"]
        attached = [
            g for g in self.internet_gateways.values() if g.vpc is not None and g.vpc.id == vpc_id
        ]
        endpoints = [
            e
            for e in self.vpc_end_points.values()
            if e.vpc_id == vpc_id and e.state not in ("deleting", "deleted")
        ]
        if groups or attached or endpoints:
            raise dependency_violation("vpc", vpc_id)
        return original(self, vpc_id)


def _security_groups() -> None:
    from moto.ec2.models import EC2Backend
    from moto.ec2.responses.security_groups import SecurityGroups

    @override(SecurityGroups, "delete_security_group")
    def delete_security_group(original: Any, self: Any) -> Any:
        group_id = self._get_param("GroupId")
        group = self.ec2_backend.get_security_group_from_id(group_id) if group_id else None
        if group is not None and group.name == "default":
            raise ec2_error(
                "CannotDelete",
                f'the specified group: "{group_id}" name: "default" cannot be deleted by a user',
            )
        return original(self)

    @override(EC2Backend, "delete_security_group")
    def delete_in_backend(
        original: Any, self: Any, name: str | None = None, group_id: str | None = None
    ) -> None:
        if group_id and security_group_in_use(self, group_id):
            raise ec2_error(
                "DependencyViolation", f"resource {group_id} has a dependent object"
            )
        original(self, name=name, group_id=group_id)


def security_group_in_use(backend: Any, group_id: str) -> bool:
    """Whether an interface carries the group or another group's rule names it."""
    for interface in list(backend.enis.values()):
        if any(group.id == group_id for group in interface.group_set):
            return True
    for groups in list(backend.groups.values()):
        for other in list(groups.values()):
            if other.id == group_id:
                continue
            for rule in [*other.ingress_rules, *other.egress_rules]:
                if (rule.source_group or {}).get("GroupId") == group_id:
                    return True
    return False


def _interfaces() -> None:
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.elastic_network_interfaces import NetworkInterface

    association = NetworkInterface.association
    # EC2 leaves the element out where there is no public address; an empty one misleads clients.
    NetworkInterface.association = property(lambda self: association.fget(self) or None)

    @override(EC2Backend, "delete_network_interface")
    def delete_network_interface(original: Any, self: Any, eni_id: str) -> None:
        interface = self.enis.get(eni_id)
        attached = interface is not None and interface.instance is not None
        # An interface goes with its instance: moto deletes it while it still is attached.
        if attached and interface.instance.state not in ("shutting-down", "terminated"):
            raise ec2_error(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        if interface is not None and interface.requester_managed:
            raise ec2_error(
                "OperationNotPermitted",
                f"You are not allowed to manage '{eni_id}': it is managed by its requester.",
            )
        original(self, eni_id)
