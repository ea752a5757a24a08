"""What all parts of the emulator share: configuration, lock, clock, rules, journal, and what the
lab has told us about Kubernetes."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .clock import Clock
from .faults import Held, Rules
from .journal import Journal
from .limits import Limits

ACCOUNT = "123456789012"
REGION = "us-east-1"
PARTITION = "aws"


@dataclass
class Settings:
    """The command line, as meant."""

    state_dir: Path
    speed: float
    kubernetes_endpoint: str
    kubernetes_ca: str
    join_timeout: float
    # Whether the lab copies the disks of images, which then wait for that.
    disks: bool = False


@dataclass
class World:
    """One emulated AWS account in one region."""

    settings: Settings
    lock: threading.RLock = field(default_factory=threading.RLock)
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    journal: Journal = field(default_factory=Journal)
    held: Held = field(default_factory=Held)
    # Instances with a Node object, and whether it is Ready; the lab posts it.
    registered: dict[str, bool] = field(default_factory=dict)
    # Deployments in kube-system and how many replicas are available; the lab posts it.
    workloads: dict[str, int] = field(default_factory=dict)
    clock: Clock = field(init=False)
    # The stores of EKS, placement groups, capacity reservations, quotas and image builds, once they are installed.
    eks: Any = None
    placement: Any = None
    reservations: Any = None
    quotas: Any = None
    builds: Any = None

    def __post_init__(self) -> None:
        self.clock = Clock(self.settings.speed, self.lock)

    @property
    def ec2(self) -> Any:
        """moto's EC2 backend."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][REGION]

    @property
    def iam(self) -> Any:
        """moto's IAM backend."""
        from moto.iam.models import iam_backends

        return iam_backends[ACCOUNT][PARTITION]

    @property
    def sts(self) -> Any:
        """moto's STS backend."""
        from moto.sts.models import sts_backends

        return sts_backends[ACCOUNT][PARTITION]

    @property
    def autoscaling(self) -> Any:
        """moto's Auto Scaling backend."""
        from moto.autoscaling.models import autoscaling_backends

        return autoscaling_backends[ACCOUNT][REGION]

    @property
    def ssm(self) -> Any:
        """moto's Systems Manager backend."""
        from moto.ssm.models import ssm_backends

        return ssm_backends[ACCOUNT][REGION]


def arn(service: str, resource: str) -> str:
    """The ARN of a regional resource of ours."""
    return f"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT}:{resource}"
