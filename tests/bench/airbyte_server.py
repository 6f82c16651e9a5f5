"""A minimal Airbyte server for benchmarks: it returns the catalog bytes it last received.

`python -m tests.bench.airbyte_server PORT` runs it in a separate process, so that its own work is
not part of the measurement.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast
from uuid import UUID

import orjson
import uvloop

ID: Final = UUID("6f1d0f62-7f3c-4f0a-9a55-6a5a3c1f2b10")
"""Id of every object except connections, which are returned with the requested id."""
_SOURCE = (
    f'{{"sourceId":"{ID}","name":"bench","workspaceId":"{ID}","sourceDefinitionId":"{ID}",'
    '"connectionConfiguration":{},"sourceName":"Bench"}'
).encode()
_CONNECTION_ID = b'"connectionId":"'
_CONNECTION = (
    f'","name":"bench","sourceId":"{ID}","destinationId":"{ID}",'
    '"status":"active","breakingChange":false,"syncCatalog":'
).encode()
_DESTINATION = (
    b'{"destinationId":"%s","name":"bench","destinationName":"Postgres",'
    b'"workspaceId":"' + str(ID).encode() + b'","connectionConfiguration":{},'
    b'"destinationDefinitionId":"25c5221d-dce2-4163-ade9-739ef790f503"}'
)
_CATALOG = b'"syncCatalog":'
_DISCOVERED: Final = b"""{"streams":[{"stream":{"name":"Account","jsonSchema":{"type":"object",
"properties":{"Id":{"type":["string","null"]},"Name":{"type":["string","null"]},
"SystemModstamp":{"type":["string","null"],"format":"date-time"}}},
"supportedSyncModes":["full_refresh","incremental"],"sourceDefinedCursor":true,
"defaultCursorField":["SystemModstamp"],"sourceDefinedPrimaryKey":[["Id"]]},
"config":{"syncMode":"incremental","cursorField":["SystemModstamp"],
"destinationSyncMode":"append_dedup","primaryKey":[["Id"]],"selected":true}}]}"""
_RESPONSES = {
    b"/api/v1/instance_configuration": b'{"version":"2.0.0"}',
    b"/api/v1/health": b'{"available":true}',
    b"/api/v1/actor_definition_versions/get_for_destination": (
        b'{"dockerRepository":"airbyte/destination-postgres","dockerImageTag":"3.0.14",'
        b'"supportsRefreshes":true}'
    ),
    b"/api/v1/commands/run/discover": b'{"id":"1"}',
    b"/api/v1/commands/status": b'{"id":"1","status":"completed"}',
    b"/api/v1/commands/output/discover": (
        b'{"id":"1","status":"succeeded","catalogId":"%s","catalog":%s}'
        % (str(ID).encode(), _DISCOVERED)
    ),
}


class _Connection(asyncio.Protocol):
    """An HTTP/1.1 server connection that handles one request at a time."""

    catalog = b'{"streams":[]}'

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = bytearray()
        self._head: tuple[bytes, int] | None = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                head = bytes(self._buffer[:end])
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                self._head = head.split(b" ", 2)[1], int(length or 0)
                del self._buffer[: end + 4]
            path, size = self._head
            if len(self._buffer) < size:
                return
            body = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._head = None
            self._respond(path, body)

    def _respond(self, path: bytes, body: bytes) -> None:
        if path.endswith(b"/connections/update"):
            # AAM writes `syncCatalog` as the last key; its bytes are stored unchanged.
            _Connection.catalog = body[body.index(_CATALOG) + len(_CATALOG) : -1]
        parts = [_SOURCE]
        if b"/connections/" in path:
            requested_id = body.partition(_CONNECTION_ID)[2][: len(str(ID))] or str(ID).encode()
            parts = [b"{", _CONNECTION_ID, requested_id, _CONNECTION, _Connection.catalog, b"}"]
        if path == b"/api/v1/connections/status":
            parts = [_statuses(body)]
        elif path == b"/api/v1/destinations/get":
            parts = [_DESTINATION % (orjson.loads(body)["destinationId"]).encode()]
        elif path in _RESPONSES:
            parts = [_RESPONSES[path]]
        length = sum(len(part) for part in parts)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.writelines([head % length, *parts])


def _statuses(body: bytes) -> bytes:
    """Return a status of each requested connection."""
    return orjson.dumps(
        [
            {"connectionId": connection_id, "connectionSyncStatus": "synced"}
            for connection_id in orjson.loads(body)["connectionIds"]
        ]
    )


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
