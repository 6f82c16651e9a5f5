"""Writes what is made from the code: pages of docs/, and files of the chart; see `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.docs import api, chart, configuration, console_routes, errors, tables

ROOT = Path(__file__).resolve().parents[2]

PAGES: dict[str, Callable[[], str]] = {
    "docs/api.md": api.write,
    "docs/configuration.md": configuration.write,
    "docs/errors.md": errors.write,
    "docs/guides/tables.md": tables.write,
    "services/console/api_routes.txt": console_routes.write,
    "deploy/helm/aam/files/services.yaml": chart.services,
    "deploy/helm/aam/files/alerts.yml": chart.alerts,
    "deploy/helm/aam/files/dashboard.json": chart.dashboard,
    "deploy/helm/aam/values.schema.json": chart.schema,
    "tests/chart/settings.json": chart.fields,
}


def main() -> None:
    """Write the pages, and name those that were changed."""
    for name, write in PAGES.items():
        path, text = ROOT / name, write()
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
