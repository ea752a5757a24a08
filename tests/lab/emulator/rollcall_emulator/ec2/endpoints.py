"""VPC endpoints: they take time to come and to go, and refuse what EC2 refuses."""

from typing import Any

from .. import durations
from ..patching import override
from ..world import REGION, World
from .errors import ec2_error

# moto's list lacks some that a node needs.
SERVICES = ("ec2", "ec2messages", "ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "s3", "ssm")
SERVICES = (*SERVICES, "ssmmessages", "sts")


def install(world: World) -> None:
    """Extends moto's VPC endpoints."""
    from moto.core.responses import ActionResult
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.vpcs import VPCEndPoint
    from moto.ec2.responses import EC2Response

    # moto filters by attribute, and calls this one `id`.
    VPCEndPoint.vpc_endpoint_id = property(lambda self: self.id)

    @override(EC2Backend, "create_vpc_endpoint")
    def create_vpc_endpoint(original: Any, self: Any, **kwargs: Any) -> Any:
        _check(self, kwargs)
        endpoint = original(self, **kwargs)
        if _is_interface(endpoint):
            _dress(self, endpoint)
        endpoint.state = "pending"

        def available() -> None:
            if endpoint.state == "pending":
                endpoint.state = "available"

        world.clock.after(durations.VPC_ENDPOINT_CREATE, available)
        return endpoint

    @override(EC2Backend, "delete_vpc_endpoints")
    def delete_vpc_endpoints(_original: Any, self: Any, vpce_ids: list[str] | None = None) -> None:
        for endpoint_id in vpce_ids or []:
            endpoint = self.vpc_end_points.get(endpoint_id)
            if endpoint is None or endpoint.state == "deleting":
                continue
            endpoint.state = "deleting"
            world.clock.after(durations.VPC_ENDPOINT_DELETE, lambda e=endpoint: _gone(self, e))

    def describe_vpc_endpoint_services(self: Any) -> ActionResult:
        zones = [zone.name for zone in self.ec2_backend.describe_availability_zones()]
        names = [f"com.amazonaws.{REGION}.{service}" for service in SERVICES]
        details = [{"ServiceName": name, "AvailabilityZones": zones} for name in names]
        return ActionResult({"ServiceNames": names, "ServiceDetails": details})

    EC2Response.describe_vpc_endpoint_services = describe_vpc_endpoint_services


def _is_interface(endpoint: Any) -> bool:
    return (endpoint.vpc_endpoint_type or "Gateway").lower() == "interface"


def _check(backend: Any, asked: dict[str, Any]) -> None:
    service = asked["service_name"]
    if service not in [f"com.amazonaws.{REGION}.{name}" for name in SERVICES]:
        raise ec2_error(
            "InvalidServiceName", f"The Vpc Endpoint Service '{service}' does not exist"
        )
    if (asked.get("endpoint_type") or "Gateway").lower() != "interface":
        for table_id in asked.get("route_table_ids") or []:
            backend.get_route_table(table_id)
        return
    zones = [backend.get_subnet(s).availability_zone for s in asked.get("subnet_ids") or []]
    if len(set(zones)) < len(zones):
        raise ec2_error(
            "DuplicateSubnetsInSameZone",
            "Found another VPC endpoint subnet in the availability zone of one of the subnets",
        )
    if asked.get("private_dns_enabled"):
        for other in backend.vpc_end_points.values():
            same = other.vpc_id == asked["vpc_id"] and other.service_name == service
            if same and other.private_dns_enabled and other.state not in ("deleting", "deleted"):
                raise ec2_error(
                    "InvalidParameter",
                    f"private-dns-enabled cannot be set because there is already a conflicting DNS "
                    f"domain for {service} in the VPC {asked['vpc_id']}",
                )


def _dress(backend: Any, endpoint: Any) -> None:
    """The interfaces belong to the endpoint, and stand behind its groups."""
    for interface_id in endpoint.network_interface_ids or []:
        interface = backend.enis[interface_id]
        interface.description = f"VPC Endpoint Interface {endpoint.id}"
        interface.requester_managed = True
        interface.status = "in-use"
        interface.private_ip_address = interface.subnet.get_available_subnet_ip(endpoint)
        groups = [backend.get_security_group_from_id(g) for g in endpoint.security_group_ids or []]
        if groups:
            interface._group_set = [group for group in groups if group is not None]


def _gone(backend: Any, endpoint: Any) -> None:
    for interface_id in endpoint.network_interface_ids or []:
        interface = backend.enis.pop(interface_id, None)
        if interface is not None:
            interface.subnet.del_subnet_ip(interface.private_ip_address)
    backend.vpc_end_points.pop(endpoint.id, None)
