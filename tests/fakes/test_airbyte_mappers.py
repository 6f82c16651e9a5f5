"""Mappers in the emulated releases: which exist, how they are validated, stored and returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
import pytest

from local.airbyte.api import dispatch
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream

Json = dict[str, Any]
FIELDS = ("Id", "Email", "Total")
AES: Json = {"algorithm": "AES", "mode": "CBC", "padding": "NoPadding", "key": "00ff"}
RSA: Json = {"algorithm": "RSA", "publicKey": "0a"}


def mapper(kind: str, **config: Any) -> Json:
    """Build a mapper without an id."""
    return {"type": kind, "mapperConfiguration": config}


def hashing(field: str = "Email") -> Json:
    """Build a hashing mapper."""
    return mapper("hashing", targetField=field, method="SHA-256", fieldNameSuffix="_hashed")


def encryption(field: str = "Email", **config: Any) -> Json:
    """Build an encryption mapper."""
    return mapper("encryption", targetField=field, fieldNameSuffix="_aes", **(AES | config))


def renaming(old: str, new: str) -> Json:
    """Build a field-renaming mapper."""
    return mapper("field-renaming", originalFieldName=old, newFieldName=new)


def rows(kind: str = "EQUAL", field: str = "Gone") -> Json:
    """Build a row filter."""
    return mapper(
        "row-filtering", conditions={"type": kind, "fieldName": field, "comparisonValue": "x"}
    )


class Airbyte:
    """A connection of one stream in an emulated release."""

    def __init__(self, version: str) -> None:
        self.server = AirbyteServer(version=version)
        self.source = self.server.add_source("crm")["sourceId"]
        self.destination = self.server.add_destination()["destinationId"]
        self.id = ""

    async def post(self, path: str, **body: Any) -> tuple[int, Json]:
        """Send a request; return status and body of the response."""
        answer = await dispatch.answer(
            self.server, "POST", dispatch.BASE + path, orjson.dumps(body)
        )
        return answer.status, orjson.loads(answer.content or b"null")

    async def write(self, *mappers: Json, **config: Any) -> tuple[int, Json]:
        """Create or update the connection with these mappers; return status and body."""
        (pair,) = catalog(stream("Account", FIELDS))["streams"]
        pair["config"] |= {"selected": True, "mappers": list(mappers), **config}
        order: Json = {"syncCatalog": {"streams": [pair]}}
        if self.id:
            return await self.post("connections/update", connectionId=self.id, **order)
        status, made = await self.post(
            "connections/create",
            sourceId=self.source,
            destinationId=self.destination,
            status="active",
            **order,
        )
        self.id = made.get("connectionId", "")
        return status, made


def config_of(connection: Mapping[str, Any]) -> Json:
    """Return the stream's configuration in a response."""
    (pair,) = connection["syncCatalog"]["streams"]
    config: Json = pair["config"]
    return config


def words(problem: Json) -> list[str]:
    """Return the validation errors of a problem response."""
    assert problem["type"] == "error:mapper-validation"
    return [one["error"] for one in problem["data"]["errors"]]


@pytest.mark.parametrize("version", ["0.63.19", "1.0", "1.1"])
async def test_mappers_are_unknown_before_1_2(version: str) -> None:
    """They are dropped without validation."""
    status, made = await Airbyte(version).write(hashing("Gone"))
    assert (status, "mappers" in config_of(made)) == (200, False)


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.8", "2.0.0"])
async def test_mappers_are_validated_after_field_selection(version: str) -> None:
    """Each is validated against the previous one's output; row filters are not validated."""
    picked: Json = {
        "fieldSelectionEnabled": True,
        "selectedFields": [{"fieldPath": [name]} for name in ("Id", "SystemModstamp")],
    }
    for mappers, config, found in (
        ([hashing("Gone")], {}, ["FIELD_NOT_FOUND"]),
        ([hashing()], picked, ["FIELD_NOT_FOUND"]),
        ([hashing(), hashing()], {}, ["FIELD_NOT_FOUND"]),
        ([renaming("Gone", "x"), hashing("Gone")], {}, ["FIELD_NOT_FOUND"] * 2),
    ):
        status, refused = await Airbyte(version).write(*mappers, **config)
        assert (status, words(refused)) == (400, found)
    for accepted in ([rows()], [hashing(), renaming("Email_hashed", "e")], []):
        assert (await Airbyte(version).write(*accepted))[0] == 200


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.8"])
async def test_existing_target_is_refused_since_1_3(version: str) -> None:
    """Earlier releases accept two fields of one name; deselected fields do not conflict."""
    airbyte = Airbyte(version)
    status, answer = await airbyte.write(renaming("Email", "Total"))
    if version == "1.2":
        assert status == 200
    else:
        assert (status, words(answer)) == (400, ["FIELD_ALREADY_EXISTS"])
    picked = [{"fieldPath": [name]} for name in ("Id", "Email", "SystemModstamp")]
    status, _ = await airbyte.write(
        renaming("Email", "Total"), fieldSelectionEnabled=True, selectedFields=picked
    )
    assert status == 200


@pytest.mark.parametrize(
    "version, known, unknown",
    [
        ("1.2", hashing(), encryption()),
        ("1.3", encryption(), mapper("field-filtering", targetField="Email")),
        ("1.8", mapper("field-filtering", targetField="Email"), mapper("of-the-future")),
    ],
)
async def test_types_of_each_release(version: str, known: Json, unknown: Json) -> None:
    assert (await Airbyte(version).write(known))[0] == 200
    assert (await Airbyte(version).write(unknown))[0] == 422


@pytest.mark.parametrize(
    "wrong, kind",
    [
        (mapper("hashing", targetField="Email"), "missing-required-param"),
        (encryption(key=None), "missing-required-param"),
        (mapper("hashing", targetField="Email", method="ROT13"), "invalid-config"),
        (rows(kind="AND"), "invalid-config"),
    ],
)
async def test_wrong_configuration_is_a_problem_of_its_own(wrong: Json, kind: str) -> None:
    status, refused = await Airbyte("2.0.0").write(wrong)
    assert (status, refused["type"]) == (400, f"error:mapper-validation/{kind}")
    assert refused["data"]["mapperType"] == wrong["type"]


async def test_hashed_fields_are_computed_and_used_only_alone() -> None:
    """Both must be empty to remove a hash; null mappers are a server error."""
    airbyte = Airbyte("2.0.0")
    shown = [{"fieldPath": ["Email"]}]
    _, made = await airbyte.write(hashedFields=shown)
    (made_of,) = config_of(made)["mappers"]
    assert made_of["mapperConfiguration"] == hashing()["mapperConfiguration"]
    assert UUID(made_of["id"])

    _, kept = await airbyte.write(hashing("Total"), hashedFields=shown)
    assert config_of(kept)["hashedFields"] == [{"fieldPath": ["Total"]}]
    _, none = await airbyte.write(hashedFields=[])
    assert (config_of(none)["mappers"], config_of(none)["hashedFields"]) == ([], [])
    assert (await airbyte.write(mappers=None))[0] == 500


async def test_masked_key_is_found_by_the_mapper_s_id() -> None:
    """The key is masked in responses; an unknown id has no stored key."""
    airbyte = Airbyte("1.3")
    _, made = await airbyte.write(encryption(), encryption("Total", **RSA, key=None))
    aes, rsa = config_of(made)["mappers"]
    assert aes["mapperConfiguration"]["key"] == "**********"
    assert rsa["mapperConfiguration"]["publicKey"] == "0a"

    assert (await airbyte.write(aes))[0] == 200
    assert config_of(airbyte.server.connections[airbyte.id])["mappers"][0] == {
        **aes,
        "mapperConfiguration": aes["mapperConfiguration"] | {"key": "00ff"},
    }
    status, refused = await airbyte.write(aes | {"id": rsa["id"]})
    assert (status, refused["type"]) == (400, "error:mapper-validation/secret-not-found")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_drafts_are_validated_against_the_stored_fields_since_1_3(version: str) -> None:
    airbyte = Airbyte(version)
    await airbyte.write()
    status, answer = await airbyte.post(
        "web_backend/mappers/validate",
        connectionId=airbyte.id,
        streamDescriptor={"name": "Account"},
        mappers=[renaming("Email", "Total"), renaming("Email", "Mail")],
    )
    if version == "1.2":
        assert status == 404
        return
    errors = [one.get("validationError", {}).get("type") for one in answer["mappers"]]
    assert (status, errors) == (200, ["FIELD_ALREADY_EXISTS", None])
    assert [one["name"] for one in answer["outputFields"]][:3] == ["Id", "Mail", "Total"]
