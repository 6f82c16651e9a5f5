"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leaks


@pytest.fixture(scope="session", autouse=True)
def org_secrets() -> Iterator[None]:
    """Generate the sample org's secrets as canaries, so that all output is scanned for them."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"):
            secret = leaks.canary(f"the sample org's {name.lower()}")
            environment.setenv(f"SAMPLE_ORG_{name}", secret)
        yield
