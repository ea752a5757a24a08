"""EC2: what moto's backend lacks, each concern in a module of its own."""

from ..world import World
from . import (
    console,
    endpoints,
    image_builds,
    instance_types,
    instances,
    network,
    placement,
    request_rules,
    reservations,
    taggable,
    tags,
    templates,
)


def install(world: World) -> None:
    """Extends moto's EC2."""
    request_rules.install(world)
    instance_types.install()
    templates.install()
    taggable.install()
    tags.install()
    world.placement = placement.install(world)
    world.reservations = reservations.install(world)
    instances.install(world)
    world.builds = image_builds.install(world)
    network.install(world)
    endpoints.install(world)
    console.install(world)
