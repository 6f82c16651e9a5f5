"""The local writer applies mappers as Airbyte's worker does."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from local.airbyte.mapped_rows import MappedStream
from local.airbyte.releases import Release
from tests.unit.catalogs import TEXT, Json, stream
from tests.unit.test_mappers import ROWS, filtering, hashing, renaming

FIELDS: Json = {"id": TEXT, "mail": TEXT, "total": {"type": "integer"}, "more": {"type": "object"}}
ROW: Json = {"id": "1", "mail": "x", "total": 3, "more": {"a": 1}}


def mapped(*mappers: Json, **config: Any) -> MappedStream:
    pair = stream(fields=FIELDS, mappers=list(mappers), cursorField=["mail"], **config)
    return MappedStream(pair, Release("2.0.0"))


def test_stream_without_mappers_is_as_it_was() -> None:
    one = mapped()
    assert one.pair["config"]["cursorField"] == ["mail"]
    assert one.record(ROW) is ROW


def test_renaming_moves_the_column_the_cursor_and_the_key() -> None:
    """The destination sees the former name everywhere; a field of that name is overwritten."""
    one = mapped(renaming("mail", "email"), renaming("id", "key"))
    assert list(one.pair["stream"]["jsonSchema"]["properties"]) == ["key", "email", "total", "more"]
    assert one.pair["config"]["cursorField"] == ["email"]
    assert one.pair["config"]["primaryKey"] == [["key"]]
    assert one.record(ROW | {"email": "old"}) == {"key": "1", "email": "x"} | {
        name: ROW[name] for name in ("total", "more")
    }


def test_schema_of_a_renamed_object_is_lost() -> None:
    one = mapped(renaming("more", "rest"), renaming("total", "sum"))
    properties = one.pair["stream"]["jsonSchema"]["properties"]
    assert (properties["rest"], properties["sum"]) == ({}, {"type": "integer"})


def test_mappers_work_on_what_the_ones_before_left() -> None:
    one = mapped(renaming("mail", "email"), hashing("email"), filtering("total"))
    written = one.record(ROW)
    assert written == {
        "id": "1",
        "more": {"a": 1},
        "email_hashed": hashlib.sha256(b"x").hexdigest(),
    }
    assert one.record({"id": "2", "mail": None}) == {"id": "2", "email_hashed": None}


@pytest.mark.parametrize("is_not", [False, True])
def test_filter_drops_rows_by_the_mapped_name(is_not: bool) -> None:
    condition = ROWS["mapperConfiguration"]["conditions"]
    if is_not:
        condition = {"type": "NOT", "conditions": [condition]}
    rows = {"type": "row-filtering", "mapperConfiguration": {"conditions": condition}}
    one = mapped(renaming("mail", "email"), rows)
    assert (one.record(ROW) is None) is is_not
    assert (one.record(ROW | {"mail": "y"}) is None) is not is_not


def test_invalid_mapper_is_dropped_and_a_failing_one_ends_the_record_s_mappers() -> None:
    """That is how a hash is lost without an error."""
    assert mapped(hashing("gone"), renaming("mail", "email")).record(ROW) == {"email": "x"} | {
        name: ROW[name] for name in ("id", "total", "more")
    }
    written = mapped(hashing("mail", method="MD2"), filtering("total")).record(ROW)
    assert written is not None
    assert written["total"] == 3


def test_encryption_can_be_undone_with_its_key() -> None:
    key, private = bytes(16), rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    aes = {"algorithm": "AES", "mode": "CBC", "padding": "PKCS5Padding", "key": key.hex()}
    by_rsa = {"algorithm": "RSA", "publicKey": public.hex()}
    made = [
        {
            "type": "encryption",
            "mapperConfiguration": of | {"targetField": name, "fieldNameSuffix": "_e"},
        }
        for name, of in (("mail", aes), ("total", by_rsa))
    ]
    written = mapped(*made).record(ROW)
    assert written is not None
    value = bytes.fromhex(written["mail_e"])
    decryptor = Cipher(algorithms.AES(key), modes.CBC(value[:16])).decryptor()
    assert decryptor.update(value[16:]) + decryptor.finalize() == b"x" + b"\x0f" * 15
    assert private.decrypt(bytes.fromhex(written["total_e"]), padding.PKCS1v15()) == b"3"
