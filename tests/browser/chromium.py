"""The journeys' Chromium: an installed Chrome or Chromium, else Playwright's, else Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from playwright.async_api import Browser, Playwright

_COMMANDS: Final = (
    "google-chrome-stable",
    "google-chrome",
    "chromium",
    "chromium-browser",
    "chrome",
)
_ON_MACOS: Final = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Names are not looked up: no request of a page or of the browser leaves this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-proxy-server",
)
_INSTALL_TIMEOUT_S: Final = 900.0
MISSING: Final = "The browser journeys did not run: no Chrome or Chromium here (make browser)."


def find(downloaded: str) -> str | None:
    """Return the first browser that runs; `downloaded` is where Playwright's own would be."""
    return next((path for path in _candidates(downloaded) if _runs(path)), None)


def install(downloaded: str) -> str | None:
    """Return a browser that runs, after installing one if necessary; None if that is impossible.

    The output of the installers is shown.
    """
    if found := find(downloaded):
        return found
    # Playwright's download can succeed on a machine without the libraries that it needs.
    for commands in (_playwrights_own(), _debians()):
        for command in commands:
            if not _succeeds(command):
                break
        if found := find(downloaded):
            return found
    return None


@asynccontextmanager
async def launched(playwright: Playwright, path: str) -> AsyncIterator[Browser]:
    """Run it without a window and with an empty profile; it leaves files in its own folder only."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = await playwright.chromium.launch(
            executable_path=path, args=list(FLAGS), env={**os.environ, "TMPDIR": folder}
        )
        yield browser
        await browser.close()


def _candidates(downloaded: str) -> Iterator[str]:
    yield from filter(None, map(shutil.which, _COMMANDS))
    yield from _ON_MACOS
    yield downloaded


def _runs(path: str) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        shown = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
        return shown.returncode == 0
    return False


def _succeeds(command: list[str]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, timeout=_INSTALL_TIMEOUT_S, check=False).returncode == 0
    return False


def _playwrights_own() -> list[list[str]]:
    return [[sys.executable, "-m", "playwright", "install", "--no-shell", "chromium"]]


def _debians() -> list[list[str]]:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return []
    quiet = ["apt-get", "-q", "-o", "Dpkg::Use-Pty=0"]
    return [
        [*quiet, "update"],
        [*quiet, "install", "--yes", "--no-install-recommends", "chromium"],
    ]
