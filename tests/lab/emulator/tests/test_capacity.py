"""What a pool of GPUs leans on beside its template: interfaces with EFA, placement groups, capacity
reservations, and VPC endpoints for those without a way out."""

from typing import Any

from conftest import Emulator, until
from scenery import image, network, refusal, role


def launch(emulator: Emulator, subnet: str, **data: Any) -> str:
    ec2 = emulator.client("ec2")
    name = f"t{len(ec2.describe_launch_templates()['LaunchTemplates'])}"
    data = {"ImageId": image(emulator), "InstanceType": "p5.48xlarge", **data}
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    made = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateName": name}, SubnetId=subnet, MinCount=1, MaxCount=1
    )
    return str(made["Instances"][0]["InstanceId"])


def terminate(emulator: Emulator, instance: str) -> None:
    ec2 = emulator.client("ec2")
    ec2.terminate_instances(InstanceIds=[instance])

    def state() -> str:
        found = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"])

    until(lambda: state() == "terminated")


def test_efa_interfaces_are_those_that_the_type_has(emulator: Emulator) -> None:
    net = network(emulator, "10.41.0.0/16")
    first = {"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa"}
    others = [
        {"NetworkCardIndex": card, "DeviceIndex": 1, "InterfaceType": "efa-only"}
        for card in range(1, 32)
    ]
    terminate(emulator, launch(emulator, net.subnets[0], NetworkInterfaces=[first, *others]))
    wrong = [
        ("p5.48xlarge", {"NetworkCardIndex": 32, "DeviceIndex": 1, "InterfaceType": "efa-only"}),
        ("p5.48xlarge", {"NetworkCardIndex": 1, "DeviceIndex": 0, "InterfaceType": "efa-only"}),
        ("p5.48xlarge", {"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa"}),
        ("m6i.large", {"NetworkCardIndex": 0, "DeviceIndex": 1, "InterfaceType": "efa-only"}),
    ]
    for kind, interface in wrong:
        plain = {"NetworkCardIndex": 0, "DeviceIndex": 0}
        with refusal("InvalidParameterValue"):
            launch(
                emulator,
                net.subnets[0],
                InstanceType=kind,
                NetworkInterfaces=[plain, interface],
            )


def test_a_placement_group_lies_in_one_zone_and_stays_while_it_is_used(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.42.0.0/16")
    tags = [{"ResourceType": "placement-group", "Tags": [{"Key": "a", "Value": "b"}]}]
    ec2.create_placement_group(GroupName="near", Strategy="cluster", TagSpecifications=tags)
    with refusal("InvalidPlacementGroup.Duplicate"):
        ec2.create_placement_group(GroupName="near", Strategy="cluster")
    found = ec2.describe_placement_groups(Filters=[{"Name": "tag:a", "Values": ["b"]}])
    assert [group["GroupName"] for group in found["PlacementGroups"]] == ["near"]
    none = ec2.describe_placement_groups(Filters=[{"Name": "tag:a", "Values": ["c"]}])
    assert none["PlacementGroups"] == []
    with refusal("InvalidPlacementGroup.Unknown"):
        launch(emulator, net.subnets[0], Placement={"GroupName": "far"})
    instance = launch(emulator, net.subnets[0], Placement={"GroupName": "near"})
    with refusal("InvalidParameterCombination", "another Availability Zone"):
        launch(emulator, net.subnets[1], Placement={"GroupName": "near"})
    with refusal("InvalidPlacementGroup.InUse"):
        ec2.delete_placement_group(GroupName="near")
    terminate(emulator, instance)
    ec2.delete_placement_group(GroupName="near")
    with refusal("InvalidPlacementGroup.Unknown"):
        ec2.delete_placement_group(GroupName="near")


def test_a_reservation_takes_what_fits_into_it_and_no_more(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.43.0.0/16")
    made = ec2.create_capacity_reservation(
        InstanceType="p5.48xlarge",
        InstancePlatform="Linux/UNIX",
        AvailabilityZone="us-east-1a",
        InstanceCount=1,
    )["CapacityReservation"]
    target = {
        "CapacityReservationTarget": {"CapacityReservationId": made["CapacityReservationId"]}
    }

    def free() -> int:
        ids = [made["CapacityReservationId"]]
        found = ec2.describe_capacity_reservations(CapacityReservationIds=ids)
        return int(found["CapacityReservations"][0]["AvailableInstanceCount"])

    with refusal("InvalidParameterValue"):
        launch(emulator, net.subnets[1], CapacityReservationSpecification=target)
    instance = launch(emulator, net.subnets[0], CapacityReservationSpecification=target)
    assert free() == 0
    within = [{"Name": "capacity-reservation-id", "Values": [made["CapacityReservationId"]]}]
    found = ec2.describe_instances(Filters=within)["Reservations"]
    assert [i["InstanceId"] for r in found for i in r["Instances"]] == [instance]
    with refusal("ReservationCapacityExceeded"):
        launch(emulator, net.subnets[0], CapacityReservationSpecification=target)
    terminate(emulator, instance)
    assert free() == 1
    block = {made["CapacityReservationId"]: {"kind": "capacity-block"}}
    emulator.control("POST", "reservations", block)
    with refusal("InvalidParameterValue"):
        launch(emulator, net.subnets[0], CapacityReservationSpecification=target)
    terminate(
        emulator,
        launch(
            emulator,
            net.subnets[0],
            CapacityReservationSpecification=target,
            InstanceMarketOptions={"MarketType": "capacity-block"},
        ),
    )
    with refusal("InvalidCapacityReservationId.NotFound"):
        ec2.describe_capacity_reservations(CapacityReservationIds=["cr-00000000"])


def test_endpoints_come_and_go_in_time_with_their_interfaces(emulator: Emulator) -> None:
    ec2 = emulator.client("ec2")
    net = network(emulator, "10.44.0.0/16")
    group = ec2.create_security_group(VpcId=net.vpc, GroupName="e", Description="e")["GroupId"]
    asked = {
        "VpcId": net.vpc,
        "VpcEndpointType": "Interface",
        "ServiceName": "com.amazonaws.us-east-1.ecr.api",
        "SubnetIds": net.subnets,
        "SecurityGroupIds": [group],
        "PrivateDnsEnabled": True,
    }
    made = ec2.create_vpc_endpoint(**asked)["VpcEndpoint"]
    assert made["State"] == "pending"
    with refusal("InvalidParameter", "conflicting DNS"):
        ec2.create_vpc_endpoint(**asked)
    with refusal("InvalidServiceName"):
        ec2.create_vpc_endpoint(**{**asked, "ServiceName": "com.amazonaws.us-east-1.nothing"})

    def found() -> list[dict[str, Any]]:
        wanted = [{"Name": "vpc-endpoint-id", "Values": [made["VpcEndpointId"]]}]
        return list(ec2.describe_vpc_endpoints(Filters=wanted)["VpcEndpoints"])

    until(lambda: found()[0]["State"] == "available")
    with refusal("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])
    until(lambda: not found())
    ec2.delete_security_group(GroupId=group)
    for subnet in net.subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=net.vpc)


def test_quotas_are_told_by_name_and_in_pages(emulator: Emulator) -> None:
    quotas = emulator.client("service-quotas")
    emulator.control("POST", "quotas", {"Running On-Demand P instances": 192})
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="ec2")
    found = {q["QuotaName"]: q["Value"] for page in pages for q in page["Quotas"]}
    assert found["Running On-Demand P instances"] == 192
    assert found["EC2-VPC Elastic IPs"] == 5


def test_what_a_role_may_do_is_simulated(emulator: Emulator) -> None:
    iam = emulator.client("iam")
    arn = role(emulator, "half", "ec2.amazonaws.com")
    statement = '{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}'
    document = f'{{"Version": "2012-10-17", "Statement": [{statement}]}}'
    iam.put_role_policy(RoleName="half", PolicyName="p", PolicyDocument=document)
    found = iam.simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=["ec2:DescribeVpcs", "ec2:CreateVpc"]
    )["EvaluationResults"]
    assert [one["EvalDecision"] for one in found] == ["allowed", "implicitDeny"]
