"""What a destination can hold is read from Airbyte, and nothing else of its configuration."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import AirbyteClient
from shared.destinations import DestinationReader
from shared.domain.destination import UNKNOWN
from shared.errors import UpstreamUnreachable
from tests.fakes.airbyte_server import POSTGRES, AirbyteServer


def add(airbyte: AirbyteServer, **configuration: Any) -> UUID:
    """Add a Postgres destination with this configuration."""
    return UUID(airbyte.add_destination("Warehouse", POSTGRES, **configuration)["destinationId"])


async def test_destination_is_read(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Its kind, the version that runs, the default schema, and the switch for raw tables."""
    plain, raw = add(airbyte, schema="sales"), add(airbyte, disable_type_dedupe=True)

    found = await client.destination_rules(plain)

    assert (found.title, found.default_schema) == ("Postgres 3.0.14", "sales")
    assert not found.is_raw_only
    assert (await client.destination_rules(raw)).is_raw_only


async def test_pinned_version_counts(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """The definition's own version is not the one that runs."""
    destination = add(airbyte)
    airbyte.pin(destination, "2.4.0")
    assert (await client.destination_rules(destination)).title == "Postgres 2.4.0"


async def test_members_of_other_types_are_no_error(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Other connectors use the same names for other things."""
    destination = add(airbyte)
    airbyte.destinations[str(destination)]["connectionConfiguration"] = {
        "schema": {"raw": "x"},
        "disable_type_dedupe": "no",
    }
    found = await client.destination_rules(destination)
    assert (found.default_schema, found.is_raw_only) == (None, False)


async def test_versions_are_remembered_for_a_while(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """So that a plan costs no calls, and an upgrade counts within minutes."""
    destination, now = add(airbyte), 0.0
    reader = DestinationReader(client, clock=lambda: now)
    assert (await reader.read(destination)).version == "3.0.14"
    airbyte.publish_version("3.0.15", definition=POSTGRES)

    calls = len(airbyte.requests)
    assert (await reader.read(destination)).version == "3.0.14"
    assert len(airbyte.requests) == calls
    now = 301.0
    assert (await reader.read(destination)).version == "3.0.15"


async def test_missing_destination_is_unknown(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """So that a person is asked; while Airbyte is away, nothing is assumed."""
    assert (await DestinationReader(client).read(uuid4())).kind == UNKNOWN
    await airbyte.stop()
    with pytest.raises(UpstreamUnreachable):
        await DestinationReader(client).read(uuid4())
