"""Helper to have Airbyte refuse the read that follows a change."""

from __future__ import annotations

from typing import Any

import pytest

from shared.airbyte_client import AirbyteClient
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
