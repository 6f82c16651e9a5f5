"""The program of docs/guides/events.md, as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import redis

_ROOT = Path(__file__).parents[2]


def test_guide_program_prints_each_event_once(redis_url: str) -> None:
    """Also events from before its group; acknowledged ones are not repeated."""
    page = (_ROOT / "docs/guides/events.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        server.delete("aam.events")
        assert printed(program, redis_url, server, "sync.triggered") == ["sync.triggered one"]
        assert printed(program, redis_url, server, "sync.finished") == ["sync.finished one"]
        server.delete("aam.events")


def printed(program: str, url: str, server: redis.Redis, type_: str) -> list[str]:
    """What the program prints after this event, until it has acknowledged all it read."""
    server.xadd("aam.events", {"type": type_, "connection_id": "one"})
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        env={"REDIS_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        until = time.monotonic() + 10
        while server.xpending("aam.events", "notebook")["pending"] and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        return [line, *process.stdout.read().splitlines()]
