"""The environment of each process of a mesh: its own settings, and what it needs of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from local import airbyte, request_guard, sign_in
from local.processes import servers
from local.processes.servers import CONSOLE, SERVICES
from local.sample_api.settings import Settings as SampleApi
from local.sample_org.settings import Settings as SampleOrg
from local.settings import Settings

SALESFORCE: Final = "CREDENTIAL_SALESFORCE_PROD__"
"""What the variables of a real Salesforce org begin with."""
_CREDENTIALS: Final = ("CREDENTIAL_", "CREDENTIALS_", "VAULT_")
_OF_SOME_PROCESSES: Final = (
    *_CREDENTIALS,
    "AIRBYTE_",
    "SUPABASE_",
    "MIGRATION_",
    "REDIS_",
    "SERVICE_",
    "ROTATION_DIGEST_",
    "STATE_ENCRYPTION_",
    "WEBHOOK_",
    "LOCAL_AIRBYTE_",
    "SAMPLE_ORG_",
    "SAMPLE_API_",
    "CONSOLE_",
    "OIDC_CLIENT_SECRET",
    "WAREHOUSE_",
)
"""What variables begin with that only some processes get."""
_WITHHELD: Final = (
    "AIRBYTE_API_KEY",
    "AIRBYTE_CLIENT_ID",
    "AIRBYTE_CLIENT_SECRET",
    "AIRBYTE_USERNAME",
    "AIRBYTE_PASSWORD",
    "SUPABASE_DB_CA_FILE",
    "ROTATION_DIGEST_KEY",
    "WEBHOOK_SIGNING_KEY",
    "STATE_ENCRYPTION_KEYS",
)
"""Set to nothing, so that a `.env` for a real Airbyte or Supabase has no effect."""
_CALL_AIRBYTE: Final = frozenset({"orchestrator", "drift_repair_agent", "schema_observer"})
_SAVE_STATES: Final = frozenset({"orchestrator", "drift_repair_agent"})
_KEY_ENVIRONMENT: Final = "local"


def given_environment() -> dict[str, str]:
    """The process's environment, which overrides a `.env` file where there is one."""
    written = dotenv_values(".env")
    return {name: value for name, value in written.items() if value} | dict(os.environ)


def names_salesforce(environment: Mapping[str, str]) -> bool:
    """Whether credentials of a real Salesforce org are set."""
    return any(value for name, value in environment.items() if name.startswith(SALESFORCE))


@dataclass(frozen=True, slots=True)
class Environments:
    """The environments of a mesh's processes.

    `given` is what they inherit from. Keys that it does not set are generated once, as files in the
    folder `state`.
    """

    settings: Settings
    given: Mapping[str, str]
    state: Path
    postgres: servers.Postgres
    valkey: servers.Valkey

    @property
    def uses_sample_org(self) -> bool:
        """Whether Salesforce is the sample org."""
        return not names_salesforce(self.given)

    @property
    def addresses(self) -> dict[str, str]:
        """The variables for using the mesh from a shell; some contain local passwords."""
        named = {name.upper(): self.settings.url_of(name) for name in (*SERVICES, CONSOLE)}
        named |= {
            f"{name.upper()}_METRICS": f"{self.settings.url_of(f'{name}_metrics')}/metrics"
            for name in (*SERVICES, CONSOLE)
        }
        if self.uses_sample_org:
            named["SAMPLE_ORG"] = self.settings.url_of("sample_org")
        if self.settings.sample_api:
            named["SAMPLE_API"] = self.settings.url_of("sample_api")
        return named | {
            "AIRBYTE_API_URL": f"{self.settings.url_of('airbyte')}/api/v1",
            "AIRBYTE_API_KEY": request_guard.token_of(self.state / "airbyte"),
            "AIRBYTE_WORKSPACE_ID": str(airbyte.WORKSPACE_ID),
            "AIRBYTE_DESTINATION_ID": str(airbyte.DESTINATION_ID),
            "SUPABASE_DB_URL": self._registry_url("orchestrator"),
            "WAREHOUSE_URL": self.postgres.warehouse_url,
            "REDIS_URL": self.valkey.url,
            "KEY_ENVIRONMENT": _KEY_ENVIRONMENT,
        }

    @property
    def owner(self) -> dict[str, str]:
        """The registry's URL as the owner of its tables, used only for migrations."""
        return {"MIGRATION_DB_URL": f"{self.postgres.url}?sslmode=disable"}

    def service(self, name: str) -> dict[str, str]:
        """The environment of a service.

        Each service has its own registry login. Only the auth_broker gets credentials, and of the
        rest only the registry's address. Only the drift_repair_agent gets the webhook signing key,
        and only the orchestrator the rotation key. Both get the key of saved states.
        """
        keys = self.state / "keys"
        known = {
            "SERVICE_PRIVATE_KEY_DIR": str(keys / name),
            "SERVICE_PUBLIC_KEYS_DIR": str(keys / "public"),
            "SUPABASE_DB_URL": self._registry_url(name),
        }
        if name == "auth_broker":
            return (
                self.inherited(*_CREDENTIALS)
                | dict.fromkeys(_WITHHELD, "")
                | self._sample_credential()
                | self._sample_api_credentials()
                | known
            )
        addresses = self.addresses
        ours = ["AIRBYTE_API_URL", "AIRBYTE_WORKSPACE_ID", "AIRBYTE_DESTINATION_ID"]
        if name in _CALL_AIRBYTE:
            ours.append("AIRBYTE_API_KEY")
        return (
            {"JOB_POLL_INTERVAL": "0.5", "KEY_ENVIRONMENT": _KEY_ENVIRONMENT}
            | self.inherited()
            | dict.fromkeys(_WITHHELD, "")
            | known
            | (self._webhooks() if name == "drift_repair_agent" else {})
            | (self._generated_key("ROTATION_DIGEST_KEY") if name == "orchestrator" else {})
            | (self._generated_key("STATE_ENCRYPTION_KEYS") if name in _SAVE_STATES else {})
            | self._peers()
            | {name: addresses[name] for name in (*ours, "REDIS_URL")}
        )

    def console(self) -> dict[str, str]:
        """The environment of the console: no login, no credential, and its own key."""
        return (
            self.inherited("CONSOLE_", "OIDC_CLIENT_SECRET")
            | self._generated_key("CONSOLE_SESSION_KEYS")
            | self._peers()
            | {
                "CONSOLE_URL": self.settings.url_of(CONSOLE),
                "SERVICE_PRIVATE_KEY_DIR": str(self.state / "keys" / CONSOLE),
                "CONSOLE_SIGN_IN_DIR": str(sign_in.links_in(self.state)),
            }
        )

    def airbyte(self, *, job_logs: Path) -> dict[str, str]:
        """The environment of the local Airbyte, which passes the sample org to its connector."""
        connectors = json.loads(self.given.get("LOCAL_AIRBYTE_CONNECTOR_ENV") or "{}")
        if self.uses_sample_org:
            connectors["source-salesforce"] = {
                "HTTPS_PROXY": f"http://127.0.0.1:{self.settings.sample_org_proxy_port}",
                "REQUESTS_CA_BUNDLE": str(self.state / "sample_org" / "ca.pem"),
            }
        manifests = [str(path) for path in self.settings.manifest_paths]
        return self.inherited("LOCAL_AIRBYTE_") | {
            "LOCAL_AIRBYTE_PORT": str(self.settings.airbyte_port),
            "LOCAL_AIRBYTE_STATE_DIR": str(self.state / "airbyte"),
            "LOCAL_AIRBYTE_JOB_LOGS_DIR": str(job_logs),
            "LOCAL_AIRBYTE_CONNECTORS_DIR": str(self.settings.connectors_dir.resolve()),
            "LOCAL_AIRBYTE_CONNECTORS": json.dumps(self.settings.connectors.split()),
            "LOCAL_AIRBYTE_MANIFESTS": json.dumps(manifests),
            "LOCAL_AIRBYTE_WAREHOUSE_URL": self.postgres.warehouse_url,
            "LOCAL_AIRBYTE_CONNECTOR_ENV": json.dumps(connectors),
        }

    def sample_org(self) -> dict[str, str]:
        """The environment of the sample org."""
        org = SampleOrg()
        return self.inherited("SAMPLE_ORG_") | {
            "SAMPLE_ORG_PORT": str(self.settings.sample_org_port),
            "SAMPLE_ORG_PROXY_PORT": str(self.settings.sample_org_proxy_port),
            "SAMPLE_ORG_STATE_DIR": str(self.state / "sample_org"),
            "SAMPLE_ORG_CLIENT_ID": org.client_id,
            "SAMPLE_ORG_CLIENT_SECRET": org.client_secret.get_secret_value(),
            "SAMPLE_ORG_REFRESH_TOKEN": org.refresh_token.get_secret_value(),
        }

    def sample_api(self) -> dict[str, str]:
        """The environment of the sample API."""
        sample = SampleApi()
        return self.inherited("SAMPLE_API_") | {
            "SAMPLE_API_PORT": str(self.settings.sample_api_port),
            "SAMPLE_API_STATE_DIR": str(self.state / "sample_api"),
            "SAMPLE_API_API_KEY": sample.api_key.get_secret_value(),
            "SAMPLE_API_CLIENT_ID": sample.client_id,
            "SAMPLE_API_CLIENT_SECRET": sample.client_secret.get_secret_value(),
        }

    def inherited(self, *prefixes: str) -> dict[str, str]:
        """What was given, without the variables of specific processes, except of `prefixes`."""
        return inherited(self.given, *prefixes)

    def _peers(self) -> dict[str, str]:
        return {f"{peer.upper()}_URL": self.settings.url_of(peer) for peer in SERVICES}

    def _registry_url(self, service: str) -> str:
        """The registry's URL with one service's login."""
        return f"{self.postgres.url_for(service)}?sslmode=disable"

    def _webhooks(self) -> dict[str, str]:
        """Webhook settings: receivers on this machine are allowed; messages link to the console."""
        return self._generated_key("WEBHOOK_SIGNING_KEY") | {
            "WEBHOOK_NETWORKS": self.given.get("WEBHOOK_NETWORKS") or "127.0.0.0/8, ::1/128",
            "CONSOLE_URL": self.settings.url_of(CONSOLE),
        }

    def _generated_key(self, key: str) -> dict[str, str]:
        """A service's own key: the given one, else one that is generated once."""
        return {key: self.given.get(key) or servers.generate_once(self.state / key.lower())}

    def _sample_credential(self) -> dict[str, str]:
        if not self.uses_sample_org:
            return {}
        org = SampleOrg()
        return {
            f"{SALESFORCE}CLIENT_ID": org.client_id,
            f"{SALESFORCE}CLIENT_SECRET": org.client_secret.get_secret_value(),
            f"{SALESFORCE}REFRESH_TOKEN": org.refresh_token.get_secret_value(),
            # Empty, so that a `.env` for a real org has no effect here.
            f"{SALESFORCE}IS_SANDBOX": "",
            f"{SALESFORCE}START_DATE": "",
        }

    def _sample_api_credentials(self) -> dict[str, str]:
        """The credentials `sample-shop` and `sample-desk`, where the sample API runs."""
        if not self.settings.sample_api:
            return {}
        sample = SampleApi()
        desk = "CREDENTIAL_SAMPLE_DESK__CREDENTIALS__"
        return {
            "CREDENTIAL_SAMPLE_SHOP__API_KEY": sample.api_key.get_secret_value(),
            f"{desk}CLIENT_ID": sample.client_id,
            f"{desk}CLIENT_SECRET": sample.client_secret.get_secret_value(),
        }


def inherited(given: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """An environment without the variables of specific processes, except those of `prefixes`."""
    no_proxy = [given.get("NO_PROXY", ""), "127.0.0.1", "localhost"]
    return {
        name: value
        for name, value in given.items()
        if not name.startswith(_OF_SOME_PROCESSES) or (prefixes and name.startswith(prefixes))
    } | {"NO_PROXY": ",".join(filter(None, no_proxy))}
