"""Helpers to have Airbyte refuse the read that follows a change, and operations fail by time."""

from __future__ import annotations

from typing import Any

import pytest

from shared.airbyte_client import AirbyteClient
from shared.operations import Operation
from tests.integration.conftest import Mesh


def refuse_read_back(
    monkeypatch: pytest.MonkeyPatch,
    mesh: Mesh,
    sending: str,
    *,
    path: str = "connections/get",
    status: int = 403,
) -> None:
    """Have Airbyte refuse the first request of `path` after the client's method `sending`."""
    send = getattr(AirbyteClient, sending)

    async def sent(self: AirbyteClient, *arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(AirbyteClient, sending, send)
        mesh.airbyte.fault(path, status)
        return await send(self, *arguments, **more)

    monkeypatch.setattr(AirbyteClient, sending, sent)


async def deadline_passes(mesh: Mesh, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until an operation of this kind waits, and let it fail by its deadline.

    What it does then to undo its effects has no deadline.
    """
    condition = f"FROM operations WHERE kind = '{kind}'"
    await mesh.until_true(f"SELECT waits_for IS NOT NULL {condition}")
    is_over = property(lambda operation: operation.failure is None)
    monkeypatch.setattr(Operation, "deadline_passed", is_over)
    await mesh.until_true(f"SELECT status = 'undoing' {condition}")
