"""docs/configuration.md: every environment variable, from the settings classes that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from annotated_types import Ge, Gt, Le
from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    HttpUrl,
    RedisDsn,
    Secret,
    SecretStr,
    TypeAdapter,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from local.airbyte.settings import Settings as LocalAirbyteSettings
from local.processes.servers import SERVICES
from local.sample_api.settings import Settings as SampleApiSettings
from local.sample_org.settings import Settings as SampleOrgSettings
from local.settings import Settings as LocalSettings
from services.auth_broker import salesforce
from services.auth_broker.settings import BrokerSettings
from services.console.settings import ConsoleSettings
from services.orchestrator.airbyte_setup import SetupSettings
from shared import config
from shared.config import (
    MigrationSettings,
    ProcessSettings,
    RagEngineSettings,
    RegistrySettings,
    ServiceAddresses,
    Settings,
)
from tests.docs.markdown import NOTICE, code, one_line, page, table

COLUMNS = ("variable", "format", "default", "meaning")


@dataclass(frozen=True)
class Section:
    """One settings class, of which the fields are listed that it adds to its parents."""

    settings: type[BaseSettings]
    title: str
    readers: str = ""
    """Who reads the variables, where it is not the services."""


SECTIONS = (
    Section(ProcessSettings, "Every service"),
    Section(RegistrySettings, "The registry"),
    Section(ServiceAddresses, "Services that call others"),
    Section(Settings, "Services that use Airbyte and Redis"),
    Section(BrokerSettings, "The auth_broker"),
    Section(RagEngineSettings, "The rag_engine"),
    Section(ConsoleSettings, "The console"),
    Section(
        MigrationSettings,
        "Migrations",
        "Read by `make migrate`, which also reads the variables of the registry.",
    ),
    Section(
        SetupSettings,
        "Setup of Airbyte",
        "Read by `python -m services.orchestrator.airbyte_setup`, which prepares an Airbyte for AAM"
        "\nand also reads the variables of the orchestrator.",
    ),
    Section(
        LocalSettings,
        "The mesh on one machine",
        "Read by `make up`, `make demo` and the tests, from the environment only.",
    ),
    Section(
        LocalAirbyteSettings,
        "The local Airbyte",
        "Read by `python -m local.airbyte`, which `make up` starts, from the environment only.",
    ),
    Section(
        SampleOrgSettings,
        "The sample org",
        "Read by `python -m local.sample_org`, which `make up` starts.",
    ),
    Section(
        SampleApiSettings,
        "The sample API",
        "Read by `python -m local.sample_api`, which `make up SAMPLE_API=1` starts.",
    ),
)

INTRODUCTION = """\
AAM is configured by environment variables. Unless a section says otherwise, a variable can also be
set in a file `.env` in the working directory; the environment takes precedence. The services, their
commands and the migrations also read the folder that `AAM_SETTINGS_DIR` names, where each variable
is a file with its name in lower case; the environment and `.env` take precedence. A process with
invalid settings exits with one line that names the variable. [.env.example](../.env.example) is a
template.

- A *duration* is a number of seconds, or an ISO 8601 duration such as `PT10M` (ten minutes) or
  `P7D` (a week). Where the format is *ISO 8601 duration*, a number of seconds is not accepted.
- *Optional* variables can be set to an empty value, which is the same as not setting them.
- *Secret* variables hold a secret, or a URL with a password in it."""

CREDENTIALS = """\
The auth_broker's store `env` reads each credential from variables
`CREDENTIAL_<ID>__<NAME>`: the credential id `salesforce-prod` and the name `client_id` make
`CREDENTIAL_SALESFORCE_PROD__CLIENT_ID`. A further `__` is one level of nesting, and a number a
place in an array. Instead, `CREDENTIAL_<ID>` may have the whole credential as one JSON object. The
other stores hold the same names. `GET /source-types/{source_type}/specification` shows the names
for any source type. These are Salesforce's:"""


def write() -> str:
    """The page."""
    sections = [part for section in SECTIONS for part in _section(section)]
    return page(
        "# Configuration", NOTICE, INTRODUCTION, *sections, "## Credentials", *_credentials()
    )


def _section(section: Section) -> Iterator[str | list[str]]:
    yield f"## {section.title}"
    yield section.readers or f"Read by {_services_with(section.settings)}."
    rows: list[tuple[str, ...]] = []
    prefix = section.settings.model_config.get("env_prefix", "")
    for name, info in _own_fields(section.settings):
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            rows += _nested(prefix, name, info)
        else:
            rows.append(_row(f"{prefix}{name}", info))
    yield table(COLUMNS, rows)


def _services_with(settings: type[BaseSettings]) -> str:
    """The services whose settings include those of a class."""
    names = [
        f"the {service}"
        for service in (*SERVICES, "console")
        if issubclass(
            get_type_hints(import_module(f"services.{service}.main").build)["settings"], settings
        )
    ]
    return _listed(names, "and")


def _own_fields(settings: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    own = get_annotations(settings)
    return ((name, info) for name, info in settings.model_fields.items() if name in own)


def _nested(prefix: str, name: str, info: FieldInfo) -> Iterator[tuple[str, ...]]:
    """A row for each field of a setting that is a model."""
    assert isinstance(info.annotation, type)
    assert issubclass(info.annotation, BaseModel)
    for part, inner in info.annotation.model_fields.items():
        variable = f"{prefix}{name}__{part}"
        yield _row(variable, inner, default=getattr(info.default, part), more=info.description)


def _row(
    name: str, info: FieldInfo, *, default: object = PydanticUndefined, more: str | None = None
) -> tuple[str, ...]:
    form = Form.of(info)
    if default is PydanticUndefined:
        default = info.get_default(call_default_factory=True)
    meaning = " ".join(one_line(text) for text in (more, info.description) if text)
    return code(name.upper()), form.words(name), form.shown(default), meaning


def _credentials() -> Iterator[str | list[str]]:
    yield CREDENTIALS
    schema = salesforce.SPECIFICATION.schema
    yield table(
        COLUMNS[:3],
        [
            (
                code(name.upper()),
                _SCHEMA_WORDS[member["type"]]
                + (f" that matches {code(member['pattern'])}" if "pattern" in member else ""),
                code(str(member["default"]).lower()) if "default" in member else _needed(name),
            )
            for name, member in schema["properties"].items()
            if "const" not in member
        ],
    )


_SCHEMA_WORDS = {"string": "text", "boolean": "`true` or `false`"}


def _needed(name: str) -> str:
    return "required" if name in salesforce.SPECIFICATION.schema["required"] else "not set"


@dataclass
class Form:
    """What an annotation says about a variable's value."""

    kind: Any
    bounds: list[Ge | Gt | Le] = field(default_factory=list)
    pattern: str | None = None
    before: list[object] = field(default_factory=list)
    """Functions that read the text before pydantic does."""

    @classmethod
    def of(cls, info: FieldInfo) -> Form:
        """The form of a setting."""
        form = cls(info.annotation)
        form._take(info.metadata)
        form._unwrap()
        return form

    def words(self, name: str) -> str:
        """The format for people."""
        words = self._kind(name)
        if self.pattern is not None:
            words = f"{words} that matches {code(self.pattern)}"
        if self._is_secret:
            words = f"{words}, secret"
        return f"{words}, optional" if config._empty_as_none in self.before else words

    @property
    def _is_secret(self) -> bool:
        return (get_origin(self.kind) or self.kind) in (Secret, SecretStr)

    @property
    def _takes_seconds(self) -> bool:
        return config._number_is_seconds in self.before or self._takes_forever

    @property
    def _takes_forever(self) -> bool:
        return config._forever_is_none in self.before

    def shown(self, default: object) -> str:
        """A default value as it would be set."""
        if default is PydanticUndefined:
            return "required"
        if isinstance(default, Secret | SecretStr):
            default = default.get_secret_value()
        if isinstance(default, Enum):
            default = default.value
        if isinstance(default, timedelta):
            return self._duration(default)
        if default is None:
            return "not set"
        if isinstance(default, bool):
            return code(str(default).lower())
        return "empty" if default == "" else code(default)

    def _duration(self, value: timedelta) -> str:
        if not self._takes_seconds:
            return code(TypeAdapter(timedelta).dump_python(value, mode="json"))
        seconds, words = value.total_seconds(), _in_words(value)
        number = code(int(seconds) if seconds.is_integer() else seconds)
        return f"{number} ({words})" if words else number

    def _take(self, metadata: list[Any]) -> None:
        for one in metadata:
            if isinstance(one, FieldInfo):
                self._take(one.metadata)
            elif isinstance(one, BeforeValidator):
                self.before.append(one.func)
            elif isinstance(one, Ge | Gt | Le):
                self.bounds.append(one)
            elif getattr(one, "pattern", None) is not None:
                self.pattern = one.pattern

    def _unwrap(self) -> None:
        """Take off `Annotated` and `| None`, in whatever order they are."""
        while True:
            arguments = get_args(self.kind)
            if get_origin(self.kind) is Annotated:
                self.kind = arguments[0]
                self._take(list(arguments[1:]))
            elif get_origin(self.kind) in (Union, UnionType):
                (self.kind,) = (one for one in arguments if one is not type(None))
            else:
                return

    def _kind(self, name: str) -> str:
        if get_origin(self.kind) is Literal:
            return _listed([code(one) for one in get_args(self.kind)], "or")
        if get_origin(self.kind) in (dict, list):
            return "JSON object" if get_origin(self.kind) is dict else "JSON array"
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return _listed([code(one.value) for one in self.kind], "or")
        if self._is_secret and name.endswith(("db_url", "warehouse_url")):
            return "`postgresql://` URL"
        if self.kind is timedelta:
            return self._duration_words()
        return f"{_KINDS[self.kind]}{self._range()}"

    def _duration_words(self) -> str:
        if self._takes_forever:
            (least,) = (one.ge for one in self.bounds if isinstance(one, Ge))
            assert isinstance(least, timedelta)
            return f"duration of {_in_words(least)} or longer, or `forever`"
        return "duration" if self._takes_seconds else "ISO 8601 duration"

    def _range(self) -> str:
        low = "".join(f" from {one.ge}" for one in self.bounds if isinstance(one, Ge))
        above = "".join(f" above {one.gt}" for one in self.bounds if isinstance(one, Gt))
        high = "".join(f" to {one.le}" for one in self.bounds if isinstance(one, Le))
        return f"{low}{above}{high}"


_KINDS: dict[type, str] = {
    bool: "`true` or `false`",
    float: "number",
    int: "integer",
    str: "text",
    Path: "path",
    UUID: "UUID",
    HttpUrl: "URL",
    AnyHttpUrl: "URL",
    SecretStr: "text",
    Secret[str]: "text",
    Secret[RedisDsn]: "`redis://` URL",
}


def _in_words(value: timedelta) -> str:
    """A duration in the largest unit that it is a multiple of; empty where that is seconds."""
    for unit in ("days", "hours", "minutes"):
        number, rest = divmod(value, timedelta(**{unit: 1}))
        if not rest:
            return f"{number} {unit}" if number > 1 else f"{number} {unit.removesuffix('s')}"
    return ""


def _listed(names: list[str], word: str) -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]
