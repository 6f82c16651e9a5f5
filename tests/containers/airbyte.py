"""Runs the local Airbyte and the sample org in one container, for the tests of docker-compose.yml.

Both listen on loopback only, as on a developer's machine. This process also serves Airbyte's API to
the other containers, by naming the loopback host that the request guard requires.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from local.airbyte.server import app_of
from local.airbyte.settings import Settings
from local.sample_org.settings import Settings as SampleOrg

PORT = 8000
ORG_STARTS_WITHIN_S = 60.0


def main() -> None:
    """Serve until stopped."""
    org = SampleOrg()
    process = subprocess.Popen([sys.executable, "-m", "local.sample_org", "serve"])
    _wait_for(f"http://127.0.0.1:{org.port}/health", process)
    password = Path(os.environ["PASSWORDS_DIR"], "warehouse").read_text().strip()
    url = f"postgresql://warehouse:{password}@postgres:5432/warehouse?sslmode=disable"
    connector_env = {
        "HTTPS_PROXY": f"http://127.0.0.1:{org.proxy_port}",
        "REQUESTS_CA_BUNDLE": str(org.state_dir / "ca.pem"),
    }
    settings = Settings(
        warehouse_url=SecretStr(url), connector_env={"source-salesforce": connector_env}
    )
    try:
        uvicorn.run(_as_loopback(app_of(settings)), host="0.0.0.0", port=PORT, ws="none")  # noqa: S104 -- only containers reach it
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + ORG_STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 -- loopback
                return
        except (URLError, OSError):
            time.sleep(0.1)
    sys.exit("The sample org did not start.")


def _as_loopback(app: ASGIApp) -> ASGIApp:
    async def renamed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            host = (b"host", f"127.0.0.1:{PORT}".encode())
            scope = {**scope, "headers": [*others, host], "server": ("127.0.0.1", PORT)}
        await app(scope, receive, send)

    return renamed


if __name__ == "__main__":
    main()
