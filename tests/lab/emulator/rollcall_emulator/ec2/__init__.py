"""EC2: what moto's backend lacks, each concern in a module of its own."""

from ..world import World
from . import console, instance_types, instances, network, request_rules, templates


def install(world: World) -> None:
    """Extends moto's EC2."""
    request_rules.install(world)
    instance_types.install()
    templates.install()
    instances.install(world)
    network.install(world)
    console.install(world)
