"""Which browser the journeys use, and how one is installed, with programs as stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser import chromium

pytestmark = pytest.mark.process


def program(path: Path, line: str) -> str:
    """Write a shell program."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chromium, "_ON_MACOS", ())
    return tmp_path


def test_first_browser_that_runs_is_taken(folder: Path) -> None:
    """An installed one before a downloaded one; one that does not start is passed over."""
    downloaded = str(folder / "downloaded")
    assert chromium.find(downloaded) is None
    program(folder / "downloaded", "exit 0")
    assert chromium.find(downloaded) == downloaded
    program(folder / "google-chrome", "exit 127")
    assert chromium.find(downloaded) == downloaded
    installed = program(folder / "chromium", "exit 0")
    assert chromium.find(downloaded) == installed


@pytest.mark.parametrize("user,found", [(0, True), (1000, False)])
def test_debians_package_is_the_last_resort(
    folder: Path, monkeypatch: pytest.MonkeyPatch, user: int, found: bool
) -> None:
    """Only if Playwright's download fails, and only for root."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    download = program(folder / "download", "exit 1")
    monkeypatch.setattr(chromium, "_playwrights_own", lambda: [[download]])
    made = folder / "chromium"
    program(
        folder / "apt-get",
        f'[ "$4" = update ] || {{ echo "#!/bin/sh" > {made}; /bin/chmod 755 {made}; }}',
    )

    assert chromium.install(str(folder / "downloaded")) == (str(made) if found else None)
