"""The Airbyte client: a refusal for a mapper names stream and field, not its configuration."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
import pytest

from shared.airbyte_client import AirbyteClient
from shared.airbyte_client._response_origin import classify
from shared.errors import MapperRefused
from tests import leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.airbyte_client.stage import client_of, connection_of, selected

Json = dict[str, Any]
KEY = leaks.canary("an AES key that Airbyte repeats")
AES: Json = {"algorithm": "AES", "mode": "CBC", "padding": "NoPadding", "key": KEY}


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.8"])
async def test_refused_mapper_is_named_without_its_configuration(version: str) -> None:
    """Airbyte's answer repeats the whole mapper, key included."""
    kind = "hashing" if version == "1.2" else "encryption"
    config = {"targetField": "Gone", "fieldNameSuffix": "_x", "method": "MD5"}
    config |= AES if kind == "encryption" else {}
    async with AirbyteServer(version=version) as airbyte, client_of(airbyte) as client:
        connection_id = await connection_of(airbyte, client)
        document = orjson.loads(selected("Account"))
        document["streams"][0]["config"]["mappers"] = [
            {"id": str(uuid4()), "type": kind, "mapperConfiguration": config}
        ]

        refused = await _refusal(client, connection_id, document)

    assert refused.problem()["mappers"] == [
        {"error": "FIELD_NOT_FOUND", "type": kind, "stream": "Account", "field": "Gone"}
    ]
    assert refused.detail.endswith(
        f"It refuses the {kind} mapper of 'Gone' in 'Account': FIELD_NOT_FOUND."
    )
    assert (refused.code, refused.is_over, refused.retryable) == ("mapper_refused", True, False)
    assert refused.__context__ is None
    for secret in (KEY, "NoPadding", "_x"):
        assert secret not in repr(refused.problem())


async def _refusal(client: AirbyteClient, connection_id: Any, document: Json) -> MapperRefused:
    with pytest.raises(MapperRefused) as refused:
        await client.update_connection(connection_id, orjson.dumps(document))
    return refused.value


@pytest.mark.parametrize(
    "data, expected",
    [
        (None, [{"error": "unknown"}]),
        ({"errors": "x"}, [{"error": "unknown"}]),
        ({"errors": [{"error": KEY, "mapper": {"type": KEY}}]}, [{"error": "unknown"}]),
        ({"errors": [{"error": "NEW_WORD", "stream": 5}]}, [{"error": "NEW_WORD"}]),
        (
            {"errors": [{"stream": "a\nb" * 200, "error": "FIELD_NOT_FOUND", "mapper": KEY}] * 90},
            50,
        ),
    ],
)
def test_answer_in_another_shape_is_not_quoted(data: Any, expected: Any) -> None:
    """Only known words and bounded names are passed on."""
    body = orjson.dumps({"type": "error:mapper-validation", "status": 400, "data": data})
    mappers = classify(400, body).mappers
    assert mappers is not None
    assert KEY not in repr(mappers)
    if isinstance(expected, int):
        assert len(mappers) == expected
        assert len(mappers[0].stream or "") <= 200
        assert "\n" not in (mappers[0].stream or "")
    else:
        found = [
            {name: value for name, value in _members(one).items() if value is not None}
            for one in mappers
        ]
        assert found == expected


def _members(one: Any) -> Json:
    return {name: getattr(one, name) for name in one.__struct_fields__}
