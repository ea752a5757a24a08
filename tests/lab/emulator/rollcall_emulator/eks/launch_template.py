"""What a managed node group's launch template may hold: EKS's checks, and the copy it launches
from."""

import base64
import json
from typing import Any

from .. import images
from ..ec2 import instance_types
from ..request import decoded_user_data
from . import errors
from .model import Cluster
from .store import Store

DEFAULT_INSTANCE_TYPE = "t3.medium"
AMI_TYPES = {"AL2023_x86_64_STANDARD": "standard", "AL2023_x86_64_NVIDIA": "nvidia"}


def resolve(store: Store, cluster: Cluster, params: dict[str, Any]) -> tuple[dict, dict]:
    """The template reference and data to launch from, or EKS's refusal."""
    reference = params.get("launchTemplate")
    if not reference:
        return {}, _without_template(store, cluster, params)
    template, version = _find(store, reference)
    data = dict(version.data)
    _refuse_in_template(data)
    _refuse_in_request(data, params)
    named = {"id": template.id, "name": template.name, "version": str(version.number)}
    types = params.get("instanceTypes") or [data.get("InstanceType") or DEFAULT_INSTANCE_TYPE]
    _check_types(types)
    data["InstanceType"] = types[0]
    if not data.get("ImageId"):
        data = {**data, **_eks_image(store, cluster, params, data)}
    elif data["ImageId"] not in store.world.ec2.amis:
        raise errors.invalid_parameter(
            f"The image ID '{data['ImageId']}' does not exist (Service: AmazonEC2; Status Code: "
            "400; Error Code: InvalidAMIID.NotFound)"
        )
    return named, data


def _find(store: Store, reference: dict[str, Any]) -> tuple[Any, Any]:
    from moto.core.exceptions import ServiceException

    if bool(reference.get("id")) == bool(reference.get("name")):
        raise errors.invalid_parameter(
            "Either the launch template ID or the launch template name must be specified, not both"
        )
    backend = store.world.ec2
    try:
        template = (
            backend.get_launch_template(reference["id"])
            if reference.get("id")
            else backend.get_launch_template_by_name(reference["name"])
        )
    except ServiceException as error:
        raise errors.invalid_request(
            f"Launch template could not be found: {error.message}"
        ) from error
    wanted = str(reference.get("version") or "$Default")
    numbers = [str(version.number) for version in template.versions]
    if wanted not in ("$Default", "$Latest", *numbers):
        raise errors.invalid_request(
            f"Launch template version does not exist: could not find the specified version "
            f"{wanted} for the launch template with ID {template.id}."
        )
    return template, template.get_version(wanted)


def _refuse_in_template(data: dict[str, Any]) -> None:
    """Settings that EKS keeps for itself."""
    if data.get("IamInstanceProfile"):
        raise errors.invalid_request(
            "Launch template should not specify an instance profile. The noderole in your "
            "request will be used to construct an instance profile."
        )
    if any(interface.get("SubnetId") for interface in data.get("NetworkInterfaces") or []):
        raise errors.invalid_request(
            "Launch template should not specify a subnet in its network interfaces. The subnets "
            "in your request will be used."
        )
    market = (data.get("InstanceMarketOptions") or {}).get("MarketType")
    if data.get("InstanceMarketOptions") and market != "capacity-block":
        raise errors.invalid_parameter(
            "Instance market options are not supported with the launch template."
        )
    if data.get("InstanceInitiatedShutdownBehavior"):
        raise errors.invalid_parameter(
            "Instance initiated shutdown behavior is not supported with the launch template."
        )
    if (data.get("HibernationOptions") or {}).get("Configured"):
        raise errors.invalid_parameter(
            "Hibernation options are not supported with the launch template."
        )
    if data.get("InstanceRequirements"):
        raise errors.invalid_parameter(
            "Instance requirements are not supported with the launch template."
        )
    if len(decoded_user_data(str(data.get("UserData") or ""))) > 16384:
        raise errors.invalid_parameter("User data is limited to 16384 bytes")


def _refuse_in_request(data: dict[str, Any], params: dict[str, Any]) -> None:
    """Settings that must be in the template once there is one."""
    if params.get("diskSize"):
        raise errors.invalid_parameter("Disk size must be specified within the launch template.")
    if params.get("remoteAccess"):
        raise errors.invalid_parameter(
            "Remote access configuration cannot be specified with a launch template."
        )
    if params.get("instanceTypes") and data.get("InstanceType"):
        raise errors.invalid_request(
            "Cannot specify instance types in launch template and API request"
        )
    block = (data.get("InstanceMarketOptions") or {}).get("MarketType") == "capacity-block"
    if block != (params.get("capacityType") == "CAPACITY_BLOCK"):
        raise errors.invalid_parameter(
            "The capacity type CAPACITY_BLOCK and the launch template's market type "
            "capacity-block must be used together."
        )
    if not data.get("ImageId"):
        return
    if params.get("amiType") not in (None, "CUSTOM"):
        raise errors.invalid_parameter(
            "You cannot specify an AMI Type other than CUSTOM, when specifying an image id in "
            "your launch template."
        )
    if params.get("version"):
        raise errors.invalid_parameter(
            "You cannot specify a kubernetes version to use when specifying an image id to use "
            "within the launch template."
        )
    if params.get("releaseVersion"):
        raise errors.invalid_parameter(
            "You cannot specify a release version to use when specifying an image id to use "
            "within the launch template."
        )


def _check_types(types: list[str]) -> None:
    unknown = [name for name in types if not instance_types.exists(name)]
    if unknown:
        raise errors.invalid_parameter(
            f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
        )


def _without_template(store: Store, cluster: Cluster, params: dict[str, Any]) -> dict[str, Any]:
    types = params.get("instanceTypes") or [DEFAULT_INSTANCE_TYPE]
    _check_types(types)
    volume = {"VolumeSize": params.get("diskSize") or 20, "DeleteOnTermination": True}
    data = {
        "InstanceType": types[0],
        "SecurityGroupIds": [cluster.vpc["clusterSecurityGroupId"]],
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": volume}],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    return {**data, **_eks_image(store, cluster, params, data)}


def _eks_image(
    store: Store, cluster: Cluster, params: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """Without an image of the user's, EKS chooses its own and appends the NodeConfig."""
    ami_type = params.get("amiType") or "AL2023_x86_64_STANDARD"
    if ami_type not in AMI_TYPES:
        raise errors.invalid_parameter(f"The AMI type {ami_type} is not served by the emulator")
    version = params.get("version") or cluster.version
    if version != cluster.version and version not in images.KUBERNETES:
        raise errors.invalid_parameter(f"Requested Nodegroup version {version} is not supported")
    user = decoded_user_data(str(data.get("UserData") or "")).decode("utf-8", "replace")
    if user and "multipart/" not in user:
        raise errors.invalid_request("User data was not in the MIME multipart format.")
    return {
        "ImageId": images.image_id(version, AMI_TYPES[ami_type]),
        "UserData": base64.b64encode(_merged_user_data(store, cluster, user).encode()).decode(),
    }


def _merged_user_data(store: Store, cluster: Cluster, user: str) -> str:
    from email import message_from_string
    from email.mime.multipart import MIMEMultipart
    from email.mime.nonmultipart import MIMENonMultipart

    merged = MIMEMultipart("mixed", boundary="//")
    if user:
        for part in message_from_string(user).get_payload():
            merged.attach(part)
    node_config = MIMENonMultipart("application", "node.eks.aws")
    settings = store.world.settings
    # JSON is YAML; nodeadm reads either.
    node_config.set_payload(
        json.dumps(
            {
                "apiVersion": "node.eks.aws/v1alpha1",
                "kind": "NodeConfig",
                "spec": {
                    "cluster": {
                        "name": cluster.name,
                        "apiServerEndpoint": settings.kubernetes_endpoint,
                        "certificateAuthority": base64.b64encode(
                            settings.kubernetes_ca.encode()
                        ).decode(),
                        "cidr": cluster.network["serviceIpv4Cidr"],
                    }
                },
            }
        )
    )
    merged.attach(node_config)
    return merged.as_string()
