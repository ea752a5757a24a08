"""Starts the emulator as a process, as the lab does, and gives boto3 clients to it."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))
CA = "-----BEGIN CERTIFICATE-----\nZm9yIHRlc3Rz\n-----END CERTIFICATE-----\n"
# One session for all clients: it reads each service's model once.
SESSION = boto3.Session()
ONCE = Config(
    retries={"total_max_attempts": 1}, s3={"addressing_style": "path"},
    signature_version="v4")


@dataclass
class Emulator:
    """A running emulator."""

    process: subprocess.Popen
    url: str
    greeting: dict[str, Any]
    state_dir: Path
    clients: dict[Any, Any] = field(default_factory=dict)

    def client(
        self, service: str, credentials: dict[str, str] | None = None, config: Config = ONCE
    ) -> Any:
        """A boto3 client with the operator's credentials, or a session's."""
        keys = credentials or {
            "AccessKeyId": self.greeting["accessKeyId"],
            "SecretAccessKey": self.greeting["secretAccessKey"],
        }
        identity = (service, keys["AccessKeyId"], keys["SecretAccessKey"], id(config))
        token = keys.get("SessionToken")
        if (identity, token) not in self.clients:
            self.clients[identity, token] = SESSION.client(
                service,
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=token,
                config=config,
            )
        return self.clients[identity, token]

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control API."""
        status, answer = self.control_raw(method, path, body)
        assert status == 200, answer
        return answer

    def control_raw(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The same, with its status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_control/{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def close(self) -> None:
        """Ends it as the lab does when it dies: stdin closes."""
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


def start(state_dir: Path, speed: float = 0.002, *extra: str) -> Emulator:
    """Starts an emulator and waits for its line."""
    authority = state_dir / "ca.pem"
    authority.write_text(CA)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "rollcall_emulator", "--port", "0",
            "--state-dir", str(state_dir), "--speed", str(speed),
            "--kubernetes-endpoint", "https://localhost:6443",
            "--kubernetes-ca", str(authority), *extra,
        ],
        cwd=HOME,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    greeting = json.loads(process.stdout.readline())
    return Emulator(process, f"http://127.0.0.1:{greeting['port']}", greeting, state_dir)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Polls until the condition holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulator for all tests that clean up or use names of their own."""
    emulator = start(tmp_path_factory.mktemp("emulator"))
    yield emulator
    emulator.close()


@pytest.fixture
def emulator(shared: Emulator) -> Iterator[Emulator]:
    """The shared emulator without fault rules."""
    shared.control("DELETE", "rules")
    yield shared
    shared.control("DELETE", "rules")


@pytest.fixture(scope="session")
def prod(shared: Emulator) -> tuple[dict[str, Any], Any]:
    """The cluster `prod` of the shared emulator, with its network."""
    import scenery

    net = scenery.network(shared)
    return scenery.cluster(shared, net), net
