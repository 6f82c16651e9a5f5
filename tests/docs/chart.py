"""The files of the Helm chart that are made from the code, from compose and from deploy/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import Secret, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from services.auth_broker.settings import BrokerSettings
from services.console import api
from services.console.settings import ConsoleSettings
from shared.auth.scopes import SERVICE_CALLS
from shared.config import MigrationSettings, RagEngineSettings, Settings
from tests.docs.configuration import Form
from tests.docs.markdown import one_line

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/aam"
_NOTICE = "# Written by `make docs`: change the code or docker-compose.yml, not this file.\n"
SETTINGS: dict[str, type[BaseSettings]] = {
    "orchestrator": Settings,
    "auth_broker": BrokerSettings,
    "drift_repair_agent": Settings,
    "schema_observer": Settings,
    "rag_engine": RagEngineSettings,
    "console": ConsoleSettings,
}
SET_BY_THE_CHART = frozenset(
    {
        *("aam_env", "aam_failpoints", "console_sign_in_dir"),  # not for production
        *("service_public_keys_dir", "service_private_key_dir", "supabase_db_ca_file"),
        *("metrics_port", "metrics_host", "airbyte_api_url", "console_url"),
        *(f"{service}_url" for service in SETTINGS),
        *("credential_store", "credentials_dir", "vault_ca_file", "vault_secret_id_file"),
        *("airbyte_client_id", "airbyte_username"),  # from the Secrets that have the other half
    }
)
"""Settings that follow from other values of the chart."""
_OF_UVICORN = {
    "FORWARDED_ALLOW_IPS": "Proxies whose X-Forwarded-For is trusted: addresses or networks, "
    "separated by commas; a setting of uvicorn."
}


def services() -> str:
    """files/services.yaml: each service's port, command, calls and settings."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    text = {
        _camel(name): {
            "component": name.replace("_", "-"),
            "module": name,
            "port": _port(compose[name.replace("_", "-")]["command"]),
            "args": compose[name.replace("_", "-")]["command"],
            "calls": [_camel(called) for called in _calls(name)],
            "settings": sorted([*_settable(settings), *_OF_UVICORN]),
        }
        for name, settings in SETTINGS.items()
    }
    return _NOTICE + yaml.safe_dump(text, sort_keys=False, width=120)


def schema() -> str:
    """values.schema.json, with the properties of `settings` from the settings classes."""
    written = json.loads((CHART / "values.schema.json").read_text())
    properties: dict[str, dict[str, Any]] = {
        name: {"type": "string", "description": text} for name, text in _OF_UVICORN.items()
    }
    for settings in SETTINGS.values():
        for name, info in _settable(settings).items():
            properties[name] = _property(info)
    written["properties"]["settings"]["properties"] = dict(sorted(properties.items()))
    return json.dumps(written, indent=2) + "\n"


def fields() -> str:
    """tests/chart/settings.json: what each service reads, for tests without the services."""
    readers: dict[str, type[BaseSettings]] = {**SETTINGS, "migrate": MigrationSettings}
    known = {
        name: {
            "read": sorted(field.upper() for field in settings.model_fields),
            "secret": sorted(
                field.upper() for field, info in settings.model_fields.items() if _is_secret(info)
            ),
        }
        for name, settings in readers.items()
    }
    return json.dumps(known, indent=1) + "\n"


def alerts() -> str:
    """files/alerts.yml, since a chart cannot read files outside its folder."""
    return (ROOT / "deploy/prometheus/alerts.yml").read_text()


def dashboard() -> str:
    """files/dashboard.json, likewise."""
    return (ROOT / "deploy/grafana/aam.json").read_text()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _port(command: list[str]) -> int:
    (port,) = (word.removeprefix("--port=") for word in command if word.startswith("--port="))
    return int(port)


def _calls(name: str) -> list[str]:
    """The services that one calls, with its own token or, for the console, a person's key."""
    own = {called for caller, called in SERVICE_CALLS if caller == name}
    return sorted(own | set(api.SERVICES) if name == "console" else own)


def _settable(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    """The settings of a service that are neither secret nor set by the chart itself."""
    return {
        name.upper(): info
        for name, info in settings.model_fields.items()
        if name not in SET_BY_THE_CHART and not _is_secret(info)
    }


def _is_secret(info: FieldInfo) -> bool:
    kind = Form.of(info).kind
    return (get_origin(kind) or kind) in (Secret, SecretStr)


def _property(info: FieldInfo) -> dict[str, Any]:
    """The schema of one setting, which is text as in an environment."""
    form = Form.of(info)
    found: dict[str, Any] = {"type": "string", "description": one_line(info.description or "")}
    if get_args(form.kind) and all(isinstance(one, str) for one in get_args(form.kind)):
        found["enum"] = list(get_args(form.kind))
    return found
