"""Puts the parts together, in the order that moto needs."""

import threading
from typing import Any

from . import autoscaling, ec2, iam, quotas, ssm, sts
from .eks import operations
from .identity import OPERATOR_KEY, Directory
from .server import Application, dispatcher
from .world import ACCOUNT, REGION, World


def assemble(world: World) -> Application:
    """A ready application."""
    iam.install()
    directory = Directory(world)
    directory.install()
    sts.install(world, directory)
    iam.install_simulation(world)
    ec2.install(world)
    autoscaling.install(world)
    world.quotas = quotas.install(world)
    ssm.install(world, directory)
    world.eks = operations.install(world, directory)
    ready = threading.Event()
    application = Application(world, directory, ready)
    application.mount(dispatcher())
    ready.set()
    return application


def greeting(world: World, application: Application, port: int) -> dict[str, Any]:
    """The line on stdout that says where we are and with which credentials to come."""
    import moto

    return {
        "port": port,
        "accessKeyId": OPERATOR_KEY,
        "secretAccessKey": application.directory.operator_secret,
        "region": REGION,
        "account": ACCOUNT,
        "moto": moto.__version__,
    }


def warm() -> None:
    """Loads what the first calls would otherwise wait for: service models and their routers."""
    from moto.core.routing import get_service_router
    from moto.core.utils import get_service_model

    for service in ("sts", "ec2", "iam", "eks", "ssm", "s3", "autoscaling"):
        get_service_model(service)
    for service in ("eks", "s3"):
        get_service_router(service)
