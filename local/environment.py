"""The environment variables that are passed on to the mesh's processes, or withheld."""

from __future__ import annotations

import os

from dotenv import dotenv_values

CREDENTIAL_PREFIXES = ("CREDENTIAL_", "CREDENTIALS_", "VAULT_")


PREFIXES = (
    *CREDENTIAL_PREFIXES,
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
)


WITHHELD = (
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


def given_environment() -> dict[str, str]:
    """The process's environment, which overrides a `.env` file where there is one."""
    written = dotenv_values(".env")
    return {name: value for name, value in written.items() if value} | dict(os.environ)
