"""`make browser`: prints the Chromium of the browser journeys, and installs one if need be."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

from tests.browser import chromium


def main() -> int:
    """Find or install a browser; 1 if none can be had."""
    with sync_playwright() as playwright:
        found = chromium.install(playwright.chromium.executable_path)
    if found is None:
        sys.stderr.write(
            "No Chrome or Chromium: none is installed, and neither Playwright nor Debian's "
            "packages (as root only) gave one. Install one, for example with your system's "
            "packages.\n"
        )
        return 1
    sys.stdout.write(f"Browser for the journeys: {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
