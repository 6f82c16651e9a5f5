"""The state of a connection's streams, and refreshes."""

from __future__ import annotations

from uuid import UUID

import pytest

from shared.airbyte_client import AirbyteClient, ConnectionState, read_state
from shared.domain.catalog import StreamId
from shared.errors import Invalid, UpstreamConflict, UpstreamRefused, UpstreamUnknown
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.airbyte_client.stage import connection_of, selected

pytestmark = pytest.mark.exact

ACCOUNT, CONTACT = StreamId(None, "Account"), StreamId(None, "Contact")


async def test_state_is_read_as_bytes_and_never_shown(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """A stream that is no longer selected still has its own."""
    connection_id = await connection_of(airbyte, client)
    assert (await client.connection_state(connection_id)).type == "not_set"
    airbyte.finish_job((await client.trigger_sync(connection_id)).id)
    await client.update_connection(connection_id, selected("Account"))

    state = await client.connection_state(connection_id)

    assert (state.type, state.shared) == ("stream", None)
    assert state.streams == {ACCOUNT: b'{"job":1}', CONTACT: b'{"job":1}'}
    assert "job" not in repr(state)


async def test_global_state_has_a_shared_part(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection_id = await connection_of(airbyte, client)
    airbyte.state_type = "global"
    airbyte.finish_job((await client.trigger_sync(connection_id)).id)

    state = await client.connection_state(connection_id)

    assert (state.type, state.shared) == ("global", b'{"job":1}')
    assert state.streams.keys() == {ACCOUNT, CONTACT}


async def test_legacy_state_and_streams_without_a_value(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """A descriptor may come with an empty namespace and without a value."""
    connection_id = await connection_of(airbyte, client)
    body = {"connectionId": str(connection_id), "stateType": "legacy", "state": {"at": 1}}
    airbyte.answer("state/get", body)
    state = await client.connection_state(connection_id)
    assert (state.type, state.streams, state.shared) == ("legacy", {}, b'{"at":1}')

    bare = [{"streamDescriptor": {"name": "Account", "namespace": ""}}]
    airbyte.answer("state/get", {**body, "stateType": "stream", "streamState": bare, "state": None})
    state = await client.connection_state(connection_id)
    assert (state.streams, state.shared) == ({ACCOUNT: b"null"}, None)


async def test_states_of_streams_are_written(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Other streams keep theirs; not while a job is open, and never without a value."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    with pytest.raises(UpstreamConflict):
        await client.put_stream_states(connection_id, {ACCOUNT: b'{"at":1}'})
    airbyte.finish_job(job.id)

    state = await client.put_stream_states(connection_id, {ACCOUNT: b'{"at":1}'})

    assert state.streams == {CONTACT: b'{"job":1}', ACCOUNT: b'{"at":1}'}
    assert (await client.connection_state(connection_id)).streams == state.streams
    for empty in (b"null", b"{}"):
        with pytest.raises(Invalid):
            await client.put_stream_states(connection_id, {ACCOUNT: empty})
    airbyte.state_type = "global"
    with pytest.raises(UpstreamUnknown):
        await client.put_stream_states(connection_id, {ACCOUNT: b'{"at":2}'})


async def test_saved_form_of_a_state_is_that_of_airbyte() -> None:
    id_ = UUID("7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f")
    for state in (
        ConnectionState("stream", {ACCOUNT: b'{"at": 1}', StreamId("crm", "Account"): b"null"}),
        ConnectionState("global", {ACCOUNT: b'{"at":1}'}, b'{"lsn":7}'),
        ConnectionState("legacy", {}, b'{"at":1}'),
        ConnectionState("not_set", {}),
    ):
        assert read_state(state.as_sent(id_)) == state


async def test_refresh_names_the_streams_and_returns_its_job(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """0.63 names no job; it is in the list either way."""
    connection_id = await connection_of(airbyte, client)
    destination = next(iter(airbyte.destinations.values()))["destinationId"]
    assert await client.supports_refreshes(destination)

    job = await client.refresh_streams(connection_id, [StreamId("crm", "Account"), CONTACT])

    (sent,) = airbyte.called("connections/refresh")
    assert sent == {
        "connectionId": str(connection_id),
        "refreshMode": "Merge",
        "streams": [
            {"streamName": "Account", "streamNamespace": "crm"},
            {"streamName": "Contact"},
        ],
    }
    (listed,) = await client.list_jobs(connection_id, limit=5)
    assert listed.config_type == "refresh"
    if airbyte.release.since(1):
        assert job is not None
        assert (job.id, job.connection_id) == (listed.id, connection_id)
    else:
        assert job is None


async def test_refresh_without_streams_is_not_sent(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte would refresh all of them."""
    connection_id = await connection_of(airbyte, client)
    with pytest.raises(Invalid):
        await client.refresh_streams(connection_id, [])
    assert airbyte.called("connections/refresh") == []


async def test_refresh_of_an_inactive_connection_waits(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte stores it, and the next sync is the refresh."""
    connection_id = await connection_of(airbyte, client)
    airbyte.connections[str(connection_id)]["status"] = "inactive"
    assert await client.refresh_streams(connection_id, [ACCOUNT]) is None
    assert await client.list_jobs(connection_id, limit=1) == []

    await client.set_status(connection_id, "active")
    job = await client.trigger_sync(connection_id)
    assert job.config_type == "refresh"


async def test_destination_without_refreshes(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """0.63 says so; later releases answer without a job, as for a stored refresh."""
    airbyte.supports_refreshes = False
    connection_id = await connection_of(airbyte, client)
    destination = next(iter(airbyte.destinations.values()))["destinationId"]
    assert not await client.supports_refreshes(destination)

    if airbyte.release.since(1):
        assert await client.refresh_streams(connection_id, [ACCOUNT]) is None
    else:
        with pytest.raises(UpstreamRefused) as refused:
            await client.refresh_streams(connection_id, [ACCOUNT])
        assert refused.value.code == "refresh_unsupported"
    assert airbyte.refreshes == {}
    assert await client.list_jobs(connection_id, limit=1) == []


async def test_refresh_with_lost_answer_is_not_sent_again(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The outcome is unknown, and the list has the job."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/refresh", "close", after_effect=True)

    with pytest.raises(UpstreamUnknown):
        await client.refresh_streams(connection_id, [ACCOUNT])

    assert len(airbyte.called("connections/refresh")) == 1
    assert [job.config_type for job in await client.list_jobs(connection_id, limit=5)] == [
        "refresh"
    ]
