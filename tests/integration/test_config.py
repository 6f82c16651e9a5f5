"""Settings: what may stand in a variable, and that a bad one ends the process in one line."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic.fields import FieldInfo

import services
from services.orchestrator.airbyte_setup import SetupSettings
from shared.config import MigrationSettings, ProcessSettings, Settings, is_loopback, load
from shared.postgres_address import PostgresAddress, SslMode, postgres_address
from tests import processes

REPOSITORY = Path(__file__).parents[2]
CANARY = "AAMCANARY-config"
URL = f"postgresql://postgres:{CANARY}@db.abcdefgh.supabase.co:5432/postgres"
UUID_TEXT = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that says nothing but where the registry is, in an empty folder."""
    for name in [*Settings.model_fields, *SetupSettings.model_fields]:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SUPABASE_DB_URL", URL)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def refusal(settings: type[ProcessSettings] = Settings) -> str:
    """The line that the process would end with."""
    with pytest.raises(SystemExit) as ended:
        load(settings)
    line = str(ended.value.code)
    assert "\n" not in line
    assert CANARY not in line
    return line


def test_only_the_registry_url_is_required(bare: pytest.MonkeyPatch) -> None:
    """Every other variable has a default, and no value of a secret is ever shown."""
    settings = load(Settings)

    assert str(settings.airbyte_api_url) == "http://localhost:8000/api/v1"
    assert settings.discover_timeout == timedelta(minutes=10)
    assert CANARY not in f"{settings!r} {settings.registry_address!r} {settings.model_dump_json()}"

    bare.delenv("SUPABASE_DB_URL")
    assert refusal() == "SUPABASE_DB_URL is not set"


@pytest.mark.parametrize(
    "url, user, password, host, port, database",
    [
        (URL, "postgres", CANARY, "db.abcdefgh.supabase.co", 5432, "postgres"),
        (
            "postgresql://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
            "postgres.abcdefgh", "pw", "aws-0-eu-central-1.pooler.supabase.com", 5432, "postgres",
        ),
        ("postgres://u:p@h", "u", "p", "h", 5432, "postgres"),
        ("postgresql://h/db", "postgres", "", "h", 5432, "db"),
        ("  postgresql://u:p@h:1/db\n", "u", "p", "h", 1, "db"),
        ("postgresql://u:p@[2001:db8::1]:5433/db", "u", "p", "2001:db8::1", 5433, "db"),
        ("postgresql://u:p@[::1]/db", "u", "p", "::1", 5432, "db"),
        ("postgresql://u:p@/db?host=/run/pg", "u", "p", "/run/pg", 5432, "db"),
        ("postgresql://u:p@/db?host=/run/pg&port=5433", "u", "p", "/run/pg", 5433, "db"),
        ("postgresql://u:p@:5433/db?host=/run/pg", "u", "p", "/run/pg", 5433, "db"),
        ("postgresql://u:p@%2Frun%2Fpg:5433/db", "u", "p", "/run/pg", 5433, "db"),
        *(
            (f"postgresql://u:{pasted}@h:5432/db", "u", meant, "h", 5432, "db")
            for pasted, meant in [
                ("a@b", "a@b"), ("a/b", "a/b"), ("a#b", "a#b"), ("a?b", "a?b"), ("a:b", "a:b"),
                ("50%off", "50%off"), ("100%", "100%"), ("a%40b%2F", "a@b/"), ("a+b", "a+b"),
                ("@/#?:%", "@/#?:%"), ("a%ffb", "a%ffb"), ("p%C3%A4ss", "päss"),
            ]
        ),
    ],
)  # fmt: skip
def test_registry_url_as_the_dashboard_shows_it(
    url: str, user: str, password: str, host: str, port: int, database: str
) -> None:
    """Direct connection or session pooler, with any password, pasted or percent-encoded."""
    read = postgres_address(url)

    assert (read.user, read.password) == (user, password)
    assert (read.host, read.port, read.database) == (host, port, database)


@pytest.mark.parametrize(
    "place, mode, root_cert",
    [
        ("db.x.supabase.co/postgres", "require", None),
        ("aws.pooler.supabase.com/postgres", "require", None),
        ("localhost/postgres", "prefer", None),
        ("localhost/postgres?sslmode=", "prefer", None),
        ("h/d?sslmode=disable", "disable", None),
        ("h/d?sslmode=allow", "allow", None),
        ("h/d?sslmode=verify-ca&sslrootcert=/ca%20s.pem", "verify-ca", Path("/ca s.pem")),
        ("h?application_name=x&sslmode=verify-full", "verify-full", None),
    ],
)
def test_sslmode(place: str, mode: SslMode, root_cert: Path | None) -> None:
    """Supabase is never called without TLS unless configured; elsewhere libpq's default applies."""
    read = postgres_address(f"postgresql://u:p@{place}")

    assert (read.ssl_mode, read.ssl_root_cert) == (mode, root_cert)


@pytest.mark.parametrize(
    "url, explanation",
    [
        ("", "must start with postgresql://"),
        ("mysql://u:{}@h/d", "must start with postgresql://"),
        ("{}", "must start with postgresql://"),
        ("postgresql://u:{}@/d", "has no host"),
        ("postgresql://u:{}@[]/d", "has no host"),
        ("postgresql://u:{}@:5432/d", "has no host"),
        ("postgresql://u:{}@/d?host=/s&port={}", "port that is not a number from 1 to 65535"),
        ("postgresql://u:{}@/d?host=/s&port=6543", "session pooler, both on"),
        ("postgresql://u:{}@h:0/d", "port that is not a number from 1 to 65535"),
        ("postgresql://u:{}@h:{}/d", "port that is not a number from 1 to 65535"),
        ("postgresql://u:[YOUR-PASSWORD]@h/d", "placeholder"),
        ("postgresql://u:{}@aws.pooler.supabase.com:6543/postgres", "session pooler, both on"),
        ("postgresql://u:{}@h:5432/d?sslmode={}", "unknown sslmode; it must be one of disable"),
        ("postgresql://u:{}@h:5432/d?sslrootcert=/no/such/{}", "names a CA"),
    ],
)
def test_invalid_registry_url_is_explained(
    bare: pytest.MonkeyPatch, url: str, explanation: str
) -> None:
    """One sentence about SUPABASE_DB_URL, which never quotes it."""
    bare.setenv("SUPABASE_DB_URL", url.replace("{}", CANARY))

    line = refusal()

    assert line.startswith("SUPABASE_DB_URL ")
    assert explanation in line


@pytest.mark.parametrize(
    "variable, value",
    [
        ("LOG_LEVEL", CANARY),
        ("REDIS_URL", f"http://:{CANARY}@localhost"),
        ("REDIS_URL", ""),
        *((f"{name}_URL", f"ftp://{CANARY}") for name in ("AIRBYTE_API", "ORCHESTRATOR",
          "AUTH_BROKER", "DRIFT_REPAIR_AGENT", "SCHEMA_OBSERVER", "RAG_ENGINE")),
        ("AIRBYTE_API_URL", CANARY),
        ("AIRBYTE_WORKSPACE_ID", CANARY),
        ("AIRBYTE_DESTINATION_ID", "7"),
        *((name, value) for name in ("AIRBYTE_TIMEOUT", "CHECK_TIMEOUT", "DISCOVER_TIMEOUT",
          "PEER_TIMEOUT", "JOB_POLL_INTERVAL", "EVENT_RELAY_INTERVAL")
          for value in (CANARY, "0", "-1", "nan", "inf", "1e300", "")),
        ("SUPABASE_DB_CA_FILE", f"/no/such/{CANARY}"),
        ("SUPABASE_DB_CA_FILE", __file__),
        ("WEBHOOK_SIGNING_KEY", f"{CANARY:.>31}"),
        ("WEBHOOK_NETWORKS", CANARY),
        ("WEBHOOK_NETWORKS", "10.0.0.1/8"),
        *((f"{name}_URL", f"http://{CANARY}.example/") for name in ("AIRBYTE_API", "ORCHESTRATOR",
          "AUTH_BROKER", "DRIFT_REPAIR_AGENT", "SCHEMA_OBSERVER", "RAG_ENGINE")),
    ],
)  # fmt: skip
def test_invalid_value_ends_the_process_in_one_line(
    bare: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """It names the variable and never its value."""
    bare.setenv(variable, value)

    assert refusal().startswith(f"{variable} ")


@pytest.mark.parametrize(
    "url, hosts, is_taken",
    [
        ("https://airbyte.example.com/api/v1", "", True),
        ("http://localhost:8000/api/v1", "", True),
        ("http://127.0.0.2:8000/api/v1", "", True),
        ("http://[::1]:8000/api/v1", "", True),
        ("http://airbyte-proxy:8000/api/v1", "", False),
        ("http://airbyte-proxy:8000/api/v1", "a, airbyte-proxy ,b", True),
        ("http://AIRBYTE-proxy:8000/api/v1", "Airbyte-Proxy", True),
        ("http://other.airbyte-proxy:8000/api/v1", "airbyte-proxy", False),
        ("http://localhost.example.com/api/v1", "", False),
        ("http://10.0.0.7/api/v1", "", False),
        ("http://10.0.0.7/api/v1", "10.0.0.7", True),
    ],
)
def test_plain_http_is_allowed_for_named_hosts(
    bare: pytest.MonkeyPatch, url: str, hosts: str, is_taken: bool
) -> None:
    """On this machine, and for the hosts in PLAIN_HTTP_HOSTS."""
    bare.setenv("AIRBYTE_API_URL", url)
    bare.setenv("PLAIN_HTTP_HOSTS", hosts)

    if is_taken:
        assert str(load(Settings).airbyte_api_url) == url.replace("AIRBYTE", "airbyte")
    else:
        assert refusal().startswith("AIRBYTE_API_URL must be https")


def test_every_invalid_variable_is_named_at_once(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AIRBYTE_WORKSPACE_ID", CANARY)
    bare.setenv("LOG_LEVEL", CANARY)

    assert re.fullmatch("LOG_LEVEL is [^;]+; AIRBYTE_WORKSPACE_ID is [^;]+", refusal())


def test_migrations_have_their_own_login(bare: pytest.MonkeyPatch) -> None:
    """MIGRATION_DB_URL where it is set, else SUPABASE_DB_URL; the services do not read it."""
    bare.setenv("MIGRATION_DB_URL", "")
    assert load(MigrationSettings).registry_address == load(Settings).registry_address

    bare.setenv("MIGRATION_DB_URL", URL.replace("postgres:", "owner:", 1))
    bare.setenv("SUPABASE_DB_URL", URL.replace("postgres:", "aam_mesh:", 1))
    settings = load(Settings)
    assert load(MigrationSettings).registry_address.user == "owner"
    assert settings.registry_address.user == "aam_mesh"
    assert not hasattr(settings, "migration_db_url")

    bare.setenv("MIGRATION_DB_URL", f"postgresql://u:{CANARY}@h:6543/d")
    assert refusal(MigrationSettings).startswith("MIGRATION_DB_URL names Supabase's transaction")


@pytest.mark.parametrize(
    "one, other",
    [
        ("AIRBYTE_CLIENT_ID", "AIRBYTE_CLIENT_SECRET"),
        ("AIRBYTE_USERNAME", "AIRBYTE_PASSWORD"),
    ],
)
def test_login_settings_must_be_set_in_pairs(
    bare: pytest.MonkeyPatch, one: str, other: str
) -> None:
    """Two empty halves are fine."""
    for given, empty in ((one, other), (other, one)):
        bare.setenv(given, CANARY)
        bare.setenv(empty, "")
        assert refusal() == f"{one} and {other} go together: set both or none"
    bare.setenv(one, CANARY)
    bare.setenv(other, CANARY)
    load(Settings)


def test_empty_optional_variable_is_unset(bare: pytest.MonkeyPatch) -> None:
    """An optional variable that is set to nothing is one that is not set, as compose passes it."""
    optional = [name for name, field in Settings.model_fields.items() if field.default is None]
    assert "airbyte_destination_id" in optional
    for name in optional:
        bare.setenv(name.upper(), "")

    settings = load(Settings)

    assert {getattr(settings, name) for name in optional} == {None}


@pytest.mark.parametrize(
    "value, seconds", [("5", 5), ("0.25", 0.25), ("PT10M", 600), ("1e3", 1000)]
)
def test_durations(bare: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    """Plain seconds or ISO 8601."""
    bare.setenv("PEER_TIMEOUT", value)

    assert load(Settings).peer_timeout == timedelta(seconds=seconds)


def test_settings_can_be_read_from_files(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder AAM_SETTINGS_DIR names; the environment takes precedence."""
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "airbyte_workspace_id").write_text(f"{UUID_TEXT}\n")
    (tmp_path / "settings" / "log_level").write_text("ERROR")
    (tmp_path / "airbyte_destination_id").write_text(CANARY)  # in the working folder: not read
    bare.setenv("AAM_SETTINGS_DIR", str(tmp_path / "settings"))
    bare.setenv("LOG_LEVEL", "DEBUG")

    settings = load(Settings)

    assert str(settings.airbyte_workspace_id) == UUID_TEXT
    assert settings.log_level == "DEBUG"
    bare.setenv("AAM_SETTINGS_DIR", "")
    assert load(Settings).airbyte_destination_id is None


def test_missing_settings_folder_is_one_line(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in its place, too."""
    for place in (tmp_path / CANARY, tmp_path / f"{CANARY}-file"):
        bare.setenv("AAM_SETTINGS_DIR", str(place))
        (tmp_path / f"{CANARY}-file").touch()
        assert refusal() == "AAM_SETTINGS_DIR is not a directory"


def test_ca_file_is_the_root_certificate(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SUPABASE_DB_CA_FILE is the registry address's root certificate, over that of the URL."""
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    bare.setenv("SUPABASE_DB_CA_FILE", str(ca))

    address = load(Settings).registry_address

    assert address == PostgresAddress(
        host="db.abcdefgh.supabase.co", port=5432, user="postgres", password=CANARY,
        database="postgres", ssl_mode="require", ssl_root_cert=ca,
    )  # fmt: skip


@pytest.mark.parametrize(
    "host, is_ours",
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("192.168.0.1", False), ("localhost.evil.example", False), ("", False),
    ],
)  # fmt: skip
def test_is_loopback(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


@pytest.mark.process
@pytest.mark.parametrize(
    "service, bad",
    [
        ("orchestrator", {"SUPABASE_DB_URL": f"postgresql://u:{CANARY}@h:6543/d"}),
        ("auth_broker", {"LOG_LEVEL": CANARY}),
    ],
)
def test_service_with_an_invalid_value_does_not_start(
    service: str, bad: dict[str, str], tmp_path: Path
) -> None:
    """One line on standard error, no traceback, and a failing exit code."""
    process = processes.run(
        [sys.executable, "-m", "uvicorn", f"services.{service}.main:app", "--port", "0"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **bad},
        cwd=tmp_path,
        timeout=120,
    )

    assert process.returncode != 0
    assert process.stdout == ""
    assert process.stderr.startswith(f"{list(bad)[-1]} ")
    assert process.stderr.count("\n") == 1
    assert CANARY not in process.stderr


def _known(cls: type[ProcessSettings] = ProcessSettings) -> dict[str, FieldInfo]:
    """The variables of a settings class and of those that add to it."""
    found = {name.upper(): field for name, field in cls.model_fields.items()}
    for child in cls.__subclasses__():
        found |= _known(child)
    return found


def test_example_lists_every_variable() -> None:
    """`.env.example` has each setting once with its default, and nothing that no service reads."""
    written = re.findall(r"^#?\s?([A-Z][A-Z0-9_]*)=(.*)$", _example(), re.MULTILINE)
    for module in pkgutil.walk_packages(services.__path__, "services."):
        importlib.import_module(module.name)
    known = _known()
    names = [name for name, _ in written if not re.match("CREDENTIAL_.*__", name)]

    assert sorted(names) == sorted(known)
    for name, value in written:
        default: Any = known[name].default if name in known else None
        if isinstance(default, timedelta):
            assert float(value) == default.total_seconds(), name
        elif isinstance(default, str):
            assert value == default, name


def test_example_changes_no_default(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copied to `.env`, it changes nothing."""
    (tmp_path / ".env").write_text(_example())
    bare.delenv("SUPABASE_DB_URL")

    assert refusal() == "SUPABASE_DB_URL is not set"

    bare.setenv("SUPABASE_DB_URL", URL)
    assert load(Settings).model_dump(exclude={"supabase_db_url"}) == Settings(
        _env_file=None
    ).model_dump(exclude={"supabase_db_url"})


def _example() -> str:
    return (REPOSITORY / ".env.example").read_text()
