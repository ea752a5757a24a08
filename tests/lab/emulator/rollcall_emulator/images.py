"""The EKS images of the region and the public parameters that name them."""

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

EKS_OWNER = "602401143452"
RELEASE = "20251103"
VARIANTS = ("standard", "nvidia")
ARCHITECTURES = ("x86_64", "arm64")
# Kubernetes version -> patch of kubelet in the image.
KUBERNETES = {"1.32": "1.32.9", "1.33": "1.33.5", "1.34": "1.34.2", "1.35": "1.35.0"}


def image_name(version: str, variant: str, architecture: str = "x86_64") -> str:
    """The name EKS gives its AL2023 image."""
    return f"amazon-eks-node-al2023-{architecture}-{variant}-{version}-v{RELEASE}"


def image_id(version: str, variant: str, architecture: str = "x86_64") -> str:
    """The id of that image, the same in every lab."""
    digest = hashlib.sha256(image_name(version, variant, architecture).encode()).hexdigest()
    return f"ami-0{digest[:16]}"


def register(state_dir: Path) -> None:
    """Writes the image list that moto loads; must run before moto's EC2 is imported.

    It replaces moto's own 1,300 images, which cost a second at the first call.
    """
    images = [_image(*kind) for kind in itertools.product(KUBERNETES, VARIANTS, ARCHITECTURES)]
    path = state_dir / "images.json"
    path.write_text(json.dumps(images))
    os.environ["MOTO_AMIS_PATH"] = str(path)


def _image(version: str, variant: str, architecture: str) -> dict[str, Any]:
    name = image_name(version, variant, architecture)
    return {
        "ami_id": image_id(version, variant, architecture),
        "name": name,
        "description": "EKS-optimized Kubernetes node based on Amazon Linux 2023, "
        f"(k8s: {KUBERNETES[version]}, containerd: 2.1.*)",
        "owner_id": EKS_OWNER,
        "public": True,
        "virtualization_type": "hvm",
        "architecture": architecture,
        "state": "available",
        "image_type": "machine",
        "image_location": f"amazon/{name}",
        "hypervisor": "xen",
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
        "creation_date": "2025-11-03T20:11:05.000Z",
        "platform": None,
        "boot_mode": "uefi-preferred",
    }


def parameters() -> dict[str, str]:
    """The public parameters: name -> value."""
    found = {}
    for version, variant, architecture in itertools.product(KUBERNETES, VARIANTS, ARCHITECTURES):
        prefix = (
            f"/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/{architecture}/{variant}"
            "/recommended"
        )
        values = {
            "image_id": image_id(version, variant, architecture),
            "image_name": image_name(version, variant, architecture),
            "release_version": f"{KUBERNETES[version]}-{RELEASE}",
        }
        found.update({f"{prefix}/{key}": value for key, value in values.items()})
        found[prefix] = json.dumps({**values, "schema_version": "2"})
    return found
