"""The sync state of a connection: AAM's view of it, and the response it is decoded from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from shared.airbyte_client._schemas import NOTHING, StreamDescriptor
from shared.domain.catalog import StreamId


class ConnectionState(msgspec.Struct, frozen=True):
    """What a connection's next sync resumes from.

    `type` is stream, global, legacy or not_set. Each value is JSON as Airbyte sent it: it belongs
    to the connector, may contain values of the source's rows, and is never logged. Airbyte keeps
    the state of streams that are no longer selected.
    """

    type: str
    streams: dict[StreamId, bytes]
    """Empty for legacy; a stream without a state of its own has `null`."""

    shared: bytes | None = None
    """Of a global state, the position that all streams share; of a legacy state, the whole one."""

    def __repr__(self) -> str:
        """Omit the values."""
        return f"ConnectionState({self.type!r}, {len(self.streams)} streams)"

    def of(self, stream: StreamId) -> bytes | None:
        """A stream's own state; None if it has none, or one without a value."""
        value = self.streams.get(stream, b"null")
        return None if value in NO_VALUES else value

    def as_sent(self, connection_id: UUID) -> bytes:
        """It in the form in which state/create_or_update_safe takes it; values stay as they are.

        Source: ConnectionState in Airbyte's config.yaml, 0.63.19 to 310e6cb6ac.
        """
        shared = msgspec.Raw(b"null" if self.shared is None else self.shared)
        held: dict[str, Any] = {"stateType": self.type, "connectionId": str(connection_id)}
        if self.type == "stream":
            held["streamState"] = sent_streams(self.streams)
        elif self.type == "global":
            held["globalState"] = {
                "shared_state": shared,
                "streamStates": sent_streams(self.streams),
            }
        elif self.type == "legacy":
            held["state"] = shared
        return msgspec.json.encode(held)


NO_VALUES = (b"null", b"{}")
"""Of a stream without state; a stored null makes the next sync fail (airbytehq/airbyte#81397)."""


def sent_streams(streams: Mapping[StreamId, bytes]) -> list[dict[str, Any]]:
    """States of streams in Airbyte's form."""
    return [
        {
            "streamDescriptor": {"name": stream.name}
            | ({} if stream.namespace is None else {"namespace": stream.namespace}),
            "streamState": msgspec.Raw(value),
        }
        for stream, value in streams.items()
    ]


class _StreamState(msgspec.Struct, frozen=True, rename="camel"):
    stream_descriptor: StreamDescriptor
    stream_state: msgspec.Raw = NOTHING


class _GlobalState(msgspec.Struct, frozen=True):
    shared_state: msgspec.Raw = NOTHING
    stream_states: list[_StreamState] = msgspec.field(name="streamStates", default_factory=list)


class StateRead(msgspec.Struct, frozen=True, rename="camel"):
    """Response of state/get."""

    connection_id: UUID
    state_type: str
    state: msgspec.Raw = NOTHING
    stream_state: list[_StreamState] | None = None
    global_state: _GlobalState | None = None

    def __repr__(self) -> str:
        """Omit the values, which may be those of rows."""
        return "StateRead()"

    def to_domain(self) -> ConnectionState:
        """Convert to AAM's type; the values are copied, so that the response can be freed."""
        whole = self.global_state
        streams = (self.stream_state if whole is None else whole.stream_states) or []
        shared = bytes(self.state if whole is None else whole.shared_state)
        return ConnectionState(
            self.state_type,
            {each.stream_descriptor.to_domain(): bytes(each.stream_state) for each in streams},
            None if shared == bytes(NOTHING) else shared,
        )


_READ = msgspec.json.Decoder(StateRead)


def read_state(document: bytes) -> ConnectionState:
    """Decode a state in the form of state/get, or of `ConnectionState.as_sent`.

    Raises:
        msgspec.DecodeError: it has another form.
    """
    return _READ.decode(document).to_domain()
