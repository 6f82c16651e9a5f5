"""Metrics on loopback are protected against DNS rebinding and cross-origin requests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.processes import servers
from tests.processes import becomes_true

ROOT = Path(__file__).resolve().parents[2]
_SERVED = (
    "from shared.observability import metrics; import sys;"
    " metrics.serve('127.0.0.1', int(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a process's metrics server."""
    port = servers.free_port()
    command = [sys.executable, "-c", f"{_SERVED}; sys.stdin.read()", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        try:
            assert becomes_true(lambda: servers.is_taken(port), 120)
            yield port
        finally:
            process.kill()


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "https://evil.example"}, 421),
        ({"Host": "LOCALHOST:{port}"}, 200),
        ({}, 200),
    ],
)
def test_web_pages_cannot_read_the_metrics(port: int, headers: dict[str, str], status: int) -> None:
    """Neither by a host name that resolves to loopback, nor from another origin."""
    filled = {name: value.format(port=port) for name, value in headers.items()}
    with httpx.Client(transport=httpx.HTTPTransport(verify=False)) as client:
        answer = client.get(f"http://127.0.0.1:{port}/metrics", headers=filled)
    assert answer.status_code == status
    assert ("python_info" in answer.text) == (status == 200)
