"""Credentials in files, as Docker and Kubernetes mount them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import threading
from pathlib import Path

import pytest

from services.auth_broker.settings import BrokerSettings
from services.auth_broker.stores import FileStore
from shared.errors import Unavailable
from tests import access
from tests.integration.brokers import ask, broker_for
from tests.pools import Sql

FIELDS = {
    "client_id": "AAMCANARY-id",
    "client_secret": "AAMCANARY-s",
    "refresh_token": "AAMCANARY-t",
}


def put(folder: Path, **fields: str | bytes) -> None:
    """A folder of variables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in fields.items():
        (folder / name).write_bytes(value.encode() if isinstance(value, str) else value)


def project(mount: Path, version: str, **fields: str) -> None:
    """What Kubernetes does: a new folder, then one link that is pointed to it at once."""
    put(mount / f"..{version}", **fields)
    (mount / "..new").symlink_to(f"..{version}")
    (mount / "..new").rename(mount / "..data")
    for name in fields:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


async def test_plain_files_as_docker_mounts_them(
    sql: Sql, registry_url: str, tmp_path: Path
) -> None:
    """A changed file counts at once."""
    put(tmp_path / "salesforce-prod", **FIELDS)
    app = broker_for(registry_url, {}, credentials_dir=tmp_path)

    assert (await ask(app, "file:salesforce-prod")).json().items() >= FIELDS.items()
    put(tmp_path / "salesforce-prod", refresh_token="AAMCANARY-new\n", start_date="2024-01-01\r\n")
    changed = (await ask(app, "file:salesforce-prod")).json()
    assert (changed["refresh_token"], changed["start_date"]) == ("AAMCANARY-new", "2024-01-01")


async def test_default_store_can_be_files(sql: Sql, registry_url: str, tmp_path: Path) -> None:
    """A missing variable is named by its file."""
    put(tmp_path / "salesforce-prod", **FIELDS | {"client_secret": ""})
    app = broker_for(registry_url, {}, credentials_dir=tmp_path, credential_store="file")

    answer = await ask(app, "salesforce-prod")

    assert answer.json()["variable"] == "salesforce-prod/client_secret"
    assert (await ask(app, "other")).json()["code"] == "credential_not_found"


async def test_kubernetes_secret_volume(tmp_path: Path) -> None:
    """Links within the folder are followed, and Kubernetes' own entries are no variables."""
    mount = tmp_path / "salesforce-prod"
    mount.mkdir()
    project(mount, "2026_11_01", **FIELDS)
    store = FileStore(tmp_path)
    assert await store.document("salesforce-prod") == FIELDS

    project(mount, "2026_11_02", **FIELDS | {"client_secret": "new"})
    assert await store.document("salesforce-prod") == FIELDS | {"client_secret": "new"}


async def test_kubernetes_projected_volume(tmp_path: Path) -> None:
    """One volume with a folder for each credential: there the folders are links."""
    put(tmp_path / "..1" / "salesforce-prod", **FIELDS)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "salesforce-prod").symlink_to("..data/salesforce-prod")

    assert await FileStore(tmp_path).document("salesforce-prod") == FIELDS


async def test_secret_changed_while_read_is_never_mixed(
    tmp_path: Path,
) -> None:
    """All variables are of one moment, or there is no answer."""
    mount = tmp_path / "a"
    mount.mkdir()
    project(mount, "v0", **dict.fromkeys(FIELDS, "v0"))
    over = threading.Event()

    def change() -> None:
        for turn in itertools.count(1):
            if over.is_set():
                return
            project(mount, f"v{turn}", **dict.fromkeys(FIELDS, f"v{turn}"))
            shutil.rmtree(mount / f"..v{turn - 1}")

    changing = asyncio.create_task(asyncio.to_thread(change))
    seen: set[str] = set()
    try:
        while len(seen) < 20:
            with contextlib.suppress(Unavailable):
                found = await FileStore(tmp_path).document("a")
                assert found.keys() == FIELDS.keys()
                (version,) = set(found.values())
                seen.add(version)
    finally:
        over.set()
        await changing


@pytest.mark.parametrize("escape", ["file", "variable", "folder", "data"])
async def test_link_out_of_the_folder_is_refused(tmp_path: Path, escape: str) -> None:
    """Whatever part of the path is the link."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, client_id="AAMCANARY-outside")
    put(root / "a", client_secret="s")
    if escape == "file":
        (root / "a" / "client_id").symlink_to(outside / "client_id")
    elif escape == "variable":
        (root / "a" / "client_id").symlink_to("../../outside/client_id")
    elif escape == "folder":
        (root / "b").symlink_to(outside)
    else:
        (root / "a" / "..data").symlink_to(outside)

    with pytest.raises(Unavailable) as refused:
        await FileStore(root).document("b" if escape == "folder" else "a")

    assert refused.value.code == "store_unavailable"
    assert "a symbolic link leads outside the directory" in refused.value.detail
    assert "AAMCANARY" not in str(refused.value.problem())


@pytest.mark.parametrize(
    "content, explanation",
    [(b"\xff\xfe", "not UTF-8 text"), (b"x" * (64 * 1024 + 1), "larger than 65536 bytes")],
)
async def test_invalid_file_is_not_read(tmp_path: Path, content: bytes, explanation: str) -> None:
    """The broken rule is named."""
    put(tmp_path / "a", client_id=content)

    with pytest.raises(Unavailable) as refused:
        await FileStore(tmp_path).document("a")

    assert explanation in refused.value.detail


async def test_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    put(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "client_id")

    with pytest.raises(Unavailable):
        await FileStore(tmp_path).document("a")


async def test_missing_folder_is_503(sql: Sql, registry_url: str, tmp_path: Path) -> None:
    """It may be mounted again; a credential without a folder does not exist."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    app = broker_for(registry_url, {}, credentials_dir=folder)
    assert (await ask(app, "file:a")).status_code == 404
    folder.rmdir()
    answer = await ask(app, "file:a")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize(
    "values, refusal",
    [
        ({"credential_store": "file"}, "CREDENTIAL_STORE=file requires CREDENTIALS_DIR"),
        ({"credential_store": "vault"}, "CREDENTIAL_STORE=vault requires VAULT_ADDR"),
        ({"credentials_dir": "/nowhere/at/all"}, "CREDENTIALS_DIR is not a directory"),
        ({"vault_role_id": "x"}, "go together"),
        (
            {
                "vault_addr": "http://vault.example.com:8200",
                "vault_role": "aam",
                "vault_role_id": "x",
                "vault_secret_id_file": "/run/secret-id",
            },
            "VAULT_ADDR must be https",
        ),
        ({"vault_ca_file": "/nowhere/at/all"}, "VAULT_CA_FILE is not a file"),
    ],
)
def test_incomplete_store_settings_are_refused(
    registry_url: str, values: dict[str, str], refusal: str
) -> None:
    """At the start, by the name of what is missing."""
    with pytest.raises(ValueError, match=refusal):
        BrokerSettings(
            _env_file=None,
            supabase_db_url=registry_url,
            **access.service_keys(),
            **values,  # type: ignore[arg-type]
        )
