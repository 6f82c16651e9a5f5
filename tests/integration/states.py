"""Helpers for saved states: their key, and what is in them."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from shared.saved_states.sealing import Sealer
from tests import leaks

KEY = leaks.canary("a key of saved states")


def opened(row: Any, key: str = KEY) -> bytes:
    """Decrypt a row of stream_states."""
    return Sealer(SecretStr(key)).open(
        bytes(row["state"]), connection_id=row["connection_id"], operation_id=row["operation_id"]
    )
