"""The hand-written OpenAPI description of an apply request describes the class that reads it."""

from __future__ import annotations

import jsonschema
import msgspec
import orjson
import pytest

from services.drift_repair_agent.applying.openapi import BODY
from services.drift_repair_agent.service import ApplyOrder
from shared.errors import Invalid

CONTENT = BODY["requestBody"]["content"]["application/json"]


def test_description_has_the_members_of_the_class() -> None:
    members = msgspec.structs.fields(ApplyOrder)
    required = [one.encode_name for one in members if one.required]

    assert list(CONTENT["schema"]["properties"]) == [one.encode_name for one in members]
    assert CONTENT["schema"]["required"] == required


def test_example_is_accepted() -> None:
    jsonschema.validate(CONTENT["example"], CONTENT["schema"])
    order = ApplyOrder.read(orjson.dumps(CONTENT["example"]))
    assert str(order.connection_id) == CONTENT["example"]["connection_id"]


@pytest.mark.parametrize("name", ["connection_id", "expected_version", "snapshot_id"])
def test_both_refuse_a_wrong_type(name: str) -> None:
    wrong = CONTENT["example"] | {name: ["x"]}

    assert not jsonschema.Draft202012Validator(CONTENT["schema"]).is_valid(wrong)
    with pytest.raises(Invalid):
        ApplyOrder.read(orjson.dumps(wrong))
