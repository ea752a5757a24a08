"""Networks: time that NAT gateways take, and the order that teardown must keep."""

from conftest import Emulator, until
from scenery import network, refusal


def test_dry_run_makes_nothing(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    before = len(ec2.describe_vpcs()["Vpcs"])
    with refusal("DryRunOperation"):
        ec2.create_vpc(CidrBlock="10.9.0.0/16", DryRun=True)
    assert len(ec2.describe_vpcs()["Vpcs"]) == before


def test_a_network_comes_down_only_in_order(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.31.0.0/16")
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=net.vpc)
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=net.subnets[0], AllocationId=address)["NatGateway"]
    assert nat["State"] == "pending"
    nat_id = nat["NatGatewayId"]

    def state() -> str:
        return ec2.describe_nat_gateways(NatGatewayIds=[nat_id])["NatGateways"][0]["State"]

    until(lambda: state() == "available")
    with refusal("DependencyViolation"):
        ec2.delete_subnet(SubnetId=net.subnets[0])
    with refusal("DependencyViolation", "mapped public address"):
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=net.vpc)
    with refusal("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=address)
    with refusal("DependencyViolation"):
        ec2.delete_vpc(VpcId=net.vpc)
    ec2.delete_nat_gateway(NatGatewayId=nat_id)
    assert state() == "deleting"
    with refusal("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=address)
    until(lambda: state() == "deleted")
    ec2.release_address(AllocationId=address)
    with refusal("DependencyViolation"):
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=net.vpc)
    for subnet in net.subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=net.vpc)
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    with refusal("InvalidVpcID.NotFound"):
        ec2.describe_vpcs(VpcIds=[net.vpc])


def test_a_nat_token_replays_and_does_not_take_other_words(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.32.0.0/16")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    asked = {"SubnetId": net.subnets[0], "AllocationId": address, "ClientToken": "nat-token"}
    first = ec2.create_nat_gateway(**asked)["NatGateway"]["NatGatewayId"]
    assert ec2.create_nat_gateway(**asked)["NatGateway"]["NatGatewayId"] == first
    with refusal("IdempotentParameterMismatch"):
        ec2.create_nat_gateway(**{**asked, "SubnetId": net.subnets[1]})
    for value, count in (("prod", 1), ("other", 0)):
        ec2.create_tags(Resources=[first], Tags=[{"Key": "rollcall:fleet", "Value": "prod"}])
        wanted = [{"Name": "tag:rollcall:fleet", "Values": [value]}]
        assert len(ec2.describe_nat_gateways(Filter=wanted)["NatGateways"]) == count
    with refusal("Resource.AlreadyAssociated"):
        ec2.create_nat_gateway(SubnetId=net.subnets[0], AllocationId=address)


def test_a_nat_gateway_that_is_not_there(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.36.0.0/16")
    missing = "nat-00000000000000000"
    table = ec2.create_route_table(VpcId=net.vpc)["RouteTable"]["RouteTableId"]
    with refusal("NatGatewayNotFound"):
        ec2.describe_nat_gateways(NatGatewayIds=[missing])
    with refusal("NatGatewayNotFound"):
        ec2.delete_nat_gateway(NatGatewayId=missing)
    with refusal("InvalidNatGatewayID.NotFound"):
        ec2.create_route(
            RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=missing
        )


def test_a_nat_gateway_is_public_outside_and_private_inside(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.33.0.0/16")
    address = ec2.allocate_address(Domain="vpc")
    assert not address["PublicIp"].startswith(("10.", "127."))
    nat = ec2.create_nat_gateway(SubnetId=net.subnets[0], AllocationId=address["AllocationId"])
    addresses = nat["NatGateway"]["NatGatewayAddresses"][0]
    assert addresses["PublicIp"] == address["PublicIp"]
    assert addresses["PrivateIp"].startswith("10.33.0.")


def test_security_groups_hold_each_other(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.34.0.0/16")
    one, two = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=net.vpc)["GroupId"]
        for name in ("one", "two")
    )
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one}]}]
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=rule)
    ec2.authorize_security_group_ingress(GroupId=two, IpPermissions=rule)
    with refusal("DependencyViolation", one):
        ec2.delete_security_group(GroupId=one)
    ec2.delete_security_group(GroupId=two)
    ec2.delete_security_group(GroupId=one)
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [net.vpc]}])
    with refusal("CannotDelete"):
        ec2.delete_security_group(GroupId=groups["SecurityGroups"][0]["GroupId"])


def test_an_interface_endpoint_holds_its_subnet(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.35.0.0/16")
    endpoint = ec2.create_vpc_endpoint(
        VpcId=net.vpc,
        ServiceName="com.amazonaws.us-east-1.ssm",
        VpcEndpointType="Interface",
        SubnetIds=net.subnets,
    )["VpcEndpoint"]
    assert endpoint["State"] == "pending"
    wanted = [endpoint["VpcEndpointId"]]
    until(
        lambda: ec2.describe_vpc_endpoints(VpcEndpointIds=wanted)["VpcEndpoints"][0]["State"]
        == "available"
    )
    with refusal("DependencyViolation"):
        ec2.delete_subnet(SubnetId=net.subnets[0])
    with refusal("OperationNotPermitted"):
        ec2.delete_network_interface(NetworkInterfaceId=endpoint["NetworkInterfaceIds"][0])
    ec2.delete_vpc_endpoints(VpcEndpointIds=wanted)
    until(lambda: not _endpoints(ec2, net.vpc))
    for subnet in net.subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=net.vpc)


def _endpoints(ec2: object, vpc: str) -> list[dict]:
    found = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    return [e for e in found["VpcEndpoints"] if e["State"] != "deleted"]
