"""Credentials of any source type as documents: nested, in each of the stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.auth_broker.stores import EnvironmentStore, FileStore
from shared.credential_documents import MAX_DEPTH, Naming
from shared.errors import Invalid, Unavailable
from tests import leaks
from tests.integration.brokers import ask, broker_for
from tests.pools import Sql

Json = dict[str, Any]
KEY = leaks.canary("a key in a document")
WHOLE: Json = {"credentials": {"auth_type": "key", "api_key": KEY}, "port": 5432}


def put(folder: Path, content: Json) -> None:
    """Files and folders, as Docker and Kubernetes mount them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        if isinstance(value, dict):
            put(folder / name, value)
        else:
            (folder / name).write_text(value)


@pytest.mark.parametrize(
    "environment, document",
    [
        ({"CREDENTIAL_A__PORT": "5432"}, {"port": "5432"}),
        (
            {"CREDENTIAL_A__CREDENTIALS__API_KEY": "k", "CREDENTIAL_A__CREDENTIALS__USER": "u"},
            {"credentials": {"api_key": "k", "user": "u"}},
        ),
        ({"CREDENTIAL_A__HEADERS__0__VALUE": "h"}, {"headers": {"0": {"value": "h"}}}),
        ({"CREDENTIAL_A": '{"apiKey": "k", "a": {"b": [1]}}'}, {"apiKey": "k", "a": {"b": [1]}}),
        ({"CREDENTIAL_A__B": "", "CREDENTIAL_A__C": "c"}, {"c": "c"}),
        ({"CREDENTIAL_A___B": "x", "CREDENTIAL_A__B_": "x", "CREDENTIAL_AB__C": "x"}, {}),
        ({}, {}),
    ],
)
async def test_environment_as_a_document(environment: dict[str, str], document: Json) -> None:
    """A further `__` nests; the whole may be one JSON text; an empty value is ignored."""
    assert await EnvironmentStore(environment).document("a") == document


@pytest.mark.parametrize(
    "environment, variable",
    [
        ({"CREDENTIAL_A": "{"}, "CREDENTIAL_A"),
        ({"CREDENTIAL_A": "[" * 5000}, "CREDENTIAL_A"),
        ({"CREDENTIAL_A": '"text"'}, "CREDENTIAL_A"),
        ({"CREDENTIAL_A": "{}", "CREDENTIAL_A__B": "x"}, "CREDENTIAL_A"),
        ({"CREDENTIAL_A__B": "x", "CREDENTIAL_A__B__C": "x"}, "CREDENTIAL_A__B__C"),
        ({"CREDENTIAL_A" + "__B" * (MAX_DEPTH + 1): "x"}, "CREDENTIAL_A" + "__B" * (MAX_DEPTH + 1)),
    ],
)
async def test_contradicting_variables_are_refused(
    environment: dict[str, str], variable: str
) -> None:
    """By name, without their values."""
    with pytest.raises(Invalid) as refused:
        await EnvironmentStore(environment).document("a")

    assert (refused.value.code, refused.value.members) == (
        "credential_invalid",
        {"variable": variable},
    )


async def test_setting_is_no_credential() -> None:
    """CREDENTIAL_STORE is the broker's own setting."""
    store = EnvironmentStore({"CREDENTIAL_STORE": "env", "CREDENTIAL_STORE__KEY": "k"})

    assert await store.document("store") == {"key": "k"}


async def test_folders_nest(tmp_path: Path) -> None:
    """One file for each value, as a projected volume of Kubernetes may have them."""
    put(tmp_path / "a", {"credentials": {"api_key": "k\n", "none": ""}, "port": "5432"})

    found = await FileStore(tmp_path).document("a")

    assert found == {"credentials": {"api_key": "k"}, "port": "5432"}


async def test_one_file_may_have_the_whole(sql: Sql, registry_url: str, tmp_path: Path) -> None:
    """`config.json`, alone; its types stay."""
    put(tmp_path / "a", {"config.json": json.dumps(WHOLE)})
    app = broker_for(registry_url, {}, credentials_dir=tmp_path)
    more = "?source_type=Widgets"

    answer = await ask(app, "file:a", of="document", more=more)

    assert answer.json()["document"] == WHOLE
    assert answer.headers["cache-control"] == "no-store"
    (tmp_path / "a" / "port").write_text("1")
    refused = await ask(app, "file:a", of="document", more=more)
    assert (refused.status_code, refused.json()["code"]) == (422, "credential_invalid")
    assert refused.json()["variable"] == "a/config.json"
    assert KEY not in refused.text
    rows = await sql.fetch("SELECT source_type, result FROM credential_audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("Widgets", "granted"),
        ("Widgets", "credential_invalid"),
    ]


@pytest.mark.parametrize("escape", ["link", "loop", "deep", "many"])
async def test_folders_are_bounded(tmp_path: Path, escape: str) -> None:
    """No link leads out, and no loop or tree takes long."""
    root = tmp_path / "root"
    put(root / "a", {"b": {"c": "x"}})
    if escape == "link":
        put(tmp_path / "outside", {"secret": "s"})
        (root / "a" / "d").symlink_to(tmp_path / "outside")
    elif escape == "loop":
        (root / "a" / "b" / "again").symlink_to("..")
        (root / "a" / "b" / "once-more").symlink_to("..")
    elif escape == "deep":
        (root / "a" / Path(*["b"] * (MAX_DEPTH + 2))).mkdir(parents=True)
    else:
        put(root / "a", {f"n{number}": "x" for number in range(1001)})

    with pytest.raises(Unavailable) as refused:
        await FileStore(root).document("a")

    assert refused.value.code == "store_unavailable"


@pytest.mark.parametrize(
    "naming, name",
    [
        (Naming("CREDENTIAL_A__", "__", is_upper=True), "CREDENTIAL_A__HEADERS__0__API_KEY"),
        (Naming("a/", "/"), "a/headers/0/api_key"),
        (Naming("aam/a#", "."), "aam/a#headers.0.api_key"),
    ],
)
def test_store_names_a_nested_value(naming: Naming, name: str) -> None:
    """As it would have to be stored."""
    assert naming.of(("headers", 0, "api_key")) == name
