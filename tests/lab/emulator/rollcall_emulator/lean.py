"""Keeps moto's import from loading data of other regions: two of its three seconds.

Must run before moto's EC2 is imported. Only `REGION` is emulated, so nothing is lost.
"""

from typing import Any

from .world import REGION


def apply() -> None:
    """Narrows the two loaders that moto's EC2 and backend tables use while they are imported."""
    import boto3.session
    from moto.utilities import utils

    def get_available_regions(
        _session: Any, _service: str, partition_name: str = "aws", **_options: Any
    ) -> list[str]:
        return [REGION] if partition_name == "aws" else []

    boto3.session.Session.get_available_regions = get_available_regions
    load_all = utils.load_resource

    def load_resource(resource: str) -> Any:
        if "instance_type_offerings" in resource and f"/{REGION}." not in resource:
            return []
        return load_all(resource)

    utils.load_resource = load_resource
