"""The process: reads its command line, serves, and ends on SIGTERM or when its stdin closes."""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from . import images
from .world import ACCOUNT, REGION, Settings, World


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rollcall_emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of the lab")
    parser.add_argument("--speed", type=float, default=1.0, help="1.0 is as slow as AWS")
    parser.add_argument("--kubernetes-endpoint", default="https://localhost:6443")
    parser.add_argument("--kubernetes-ca", type=Path, help="PEM file that DescribeCluster serves")
    parser.add_argument("--join-timeout", type=float, default=1500.0, help="real seconds")
    parser.add_argument("--disks", action="store_true", help="images wait until POST disks says that their disk is kept")
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> Settings:
    arguments.state_dir.mkdir(parents=True, exist_ok=True)
    authority = arguments.kubernetes_ca.read_text() if arguments.kubernetes_ca else ""
    return Settings(
        state_dir=arguments.state_dir.resolve(),
        speed=arguments.speed,
        kubernetes_endpoint=arguments.kubernetes_endpoint,
        kubernetes_ca=authority,
        join_timeout=arguments.join_timeout,
        disks=arguments.disks,
    )


def _environment(settings: Settings) -> None:
    """moto reads these when it is imported."""
    os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"
    images.register(settings.state_dir)


def main() -> int:
    """Runs the emulator."""
    arguments = _arguments()
    settings = _settings(arguments)
    _environment(settings)
    # Imported here: moto must find its environment set.
    from . import lean

    lean.apply()
    from . import assembly, server

    world = World(settings)
    application = assembly.assemble(world)
    listener = server.listen(application, arguments.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end())
    threading.Thread(target=_wait_for_stdin, name="stdin", daemon=True).start()
    print(json.dumps(assembly.greeting(world, application, listener.port)), flush=True)
    threading.Thread(target=assembly.warm, name="warm", daemon=True).start()
    # In the main thread, which wakes twice a second: a signal's handler runs nowhere else.
    listener.serve_forever(poll_interval=0.5)
    return 0


def _wait_for_stdin() -> None:
    """Whoever started us holds our stdin; when they die, we end."""
    # Not through sys.stdin: its lock, held by this thread, would abort the interpreter's end.
    while os.read(0, 4096):
        pass
    _end()


def _end() -> None:
    """Ends at once, whatever other threads are doing: all state is in memory and meant to go."""
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
