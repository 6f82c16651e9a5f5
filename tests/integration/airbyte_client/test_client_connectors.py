"""The version of the connector that a source runs, and its upgrade."""

from __future__ import annotations

from datetime import date
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import AirbyteClient
from shared.errors import UpstreamMissing, UpstreamUnknown
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.airbyte_client.stage import source_of

pytestmark = pytest.mark.exact

READ = "actor_definition_versions/get_for_source"


async def test_version_is_read_with_what_lies_ahead(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Breaking changes come with their deadline and guide, nearest first."""
    source_id = source_of(airbyte)
    running = await client.connector_version(source_id)
    assert (running.repository, running.tag) == ("airbyte/source-salesforce", "2.10.3")
    assert (running.support_state, running.is_pinned) == ("supported", False)
    assert (running.upcoming, running.deadline, running.is_declarative) == ((), None, False)

    airbyte.publish_version("3.0.0", breaking=True, days=30)
    near = airbyte.publish_version("4.0.0", breaking=True, days=5)
    running = await client.connector_version(source_id)

    assert (running.tag, running.support_state) == ("2.10.3", "deprecated")
    assert [one.version for one in running.upcoming] == ["4.0.0", "3.0.0"]
    assert running.deadline == date.fromisoformat(near["upgradeDeadline"])
    assert running.upcoming[0].guide == near["migrationDocumentationUrl"]
    with pytest.raises(UpstreamMissing):
        await client.connector_version(uuid4())


async def test_what_is_no_web_address_is_no_guide(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Texts of the connectors' registry are bounded, and its deadlines need not be dates."""
    answer = {
        "dockerRepository": "airbyte/source-x",
        "dockerImageTag": "1.0.0",
        "breakingChanges": {
            "upcomingBreakingChanges": [
                {
                    "version": "2.0.0",
                    "message": "\0" + "x" * 5_000,
                    "migrationDocumentationUrl": "javascript:alert(1)",
                    "upgradeDeadline": "soon",
                }
            ],
            "minUpgradeDeadline": "soon",
        },
    }
    newest.answer(READ, answer)

    running = await client.connector_version(source_of(newest))

    (change,) = running.upcoming
    assert (change.guide, change.deadline, change.message) == (None, None, "x" * 1_000)


async def test_active_manifest_of_a_builder_connector(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Others have none."""
    source_id = source_of(airbyte)
    assert await client.manifest_version(source_id) is None
    airbyte.publish_manifest(3)
    airbyte.publish_manifest(4)
    assert await client.manifest_version(source_id) == 4
    assert (await client.connector_version(source_id)).is_declarative


async def test_upgrade_is_sent_once(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Whatever becomes of its answer; a 500 may be a pin, which the client cannot know."""
    source_id = source_of(airbyte)
    airbyte.publish_version("3.0.0", breaking=True)
    airbyte.pin(source_id, "2.10.3")
    with pytest.raises(UpstreamUnknown) as refused:
        await client.upgrade_source_version(source_id)
    assert refused.value.is_over
    airbyte.pin(source_id, "2.10.3", by="breaking_change")
    airbyte.fault("sources/upgrade_version", "reset", after_effect=True)
    with pytest.raises(UpstreamUnknown):
        await client.upgrade_source_version(source_id)
    assert len(airbyte.called("sources/upgrade_version")) == 2
    assert (await client.connector_version(source_id)).tag == "3.0.0"
    await client.upgrade_source_version(source_id)
    assert UUID(airbyte.called(READ)[-1]["sourceId"]) == source_id
