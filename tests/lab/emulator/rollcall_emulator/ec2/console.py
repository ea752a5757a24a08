"""GetConsoleOutput: the tail of the node's own serial console."""

import base64
from typing import Any

from ..clock import utcnow
from ..patching import override
from ..world import World

CONSOLE_LIMIT = 64 * 1024


def install(world: World) -> None:
    """Serves the console files that the lab's nodes write."""
    from moto.core.responses import ActionResult
    from moto.core.types import Base64EncodedString
    from moto.ec2.responses.general import General

    @override(General, "get_console_output")
    def get_console_output(_original: Any, self: Any) -> ActionResult:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        path = world.settings.state_dir / "nodes" / instance.id / "root" / "dev" / "console"
        result = {"InstanceId": instance.id, "Timestamp": utcnow()}
        try:
            text = path.read_bytes()[-CONSOLE_LIMIT:]
        except OSError:
            text = b""
        # Without a boot there is no console yet: EC2 then leaves Output out.
        if text:
            result["Output"] = Base64EncodedString(base64.b64encode(text).decode())
        return ActionResult(result)
