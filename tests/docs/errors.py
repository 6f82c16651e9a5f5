"""docs/errors.md: every `code` of a problem, found in the source, with what it means.

A code is in an error class, in the `code=` argument of an error that is raised, or in the problem
that a catalog is refused for. Where an argument is computed, `COMPUTED` has what it can be.
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from types import FunctionType, MethodType

import services
import shared
from services.drift_repair_agent.repairs.verification import StillRunning
from services.orchestrator.credentials import _FOR_GOOD
from shared.errors import (
    AamError,
    DiscoverFailed,
    NotActive,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.operations._runner import _DEADLINE_OF
from shared.snapshots import DUPLICATE_STREAM
from tests.docs.error_meanings import MEANINGS, PROBLEMS
from tests.docs.markdown import NOTICE, code, one_line, page, table

ROOT = Path(__file__).resolve().parents[2]
ANY_STATUS = 1000
"""Stands for a status that the HTTP framework chose."""

INTRODUCTION = """\
A request that fails is answered with problem+json
([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):

```json
{
  "type": "urn:aam:problem:not_found",
  "title": "Not found",
  "status": 404,
  "detail": "No connection 7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f.",
  "code": "not_found",
  "request_id": "5d1f0c3e9a7b4f0c8e6d2a1b3c4d5e6f"
}
```

`code` is stable, so programs should rely on it; `detail` is a sentence for people and can change.
Some codes come with further members, such as `operation_id`. All log lines of the request contain
its `request_id`.

A `503` means that nothing was recorded, so the request can be repeated. After a `504` the outcome
is unknown, or the operation was given up: read the state before repeating the request."""

OTHER_STATUSES = """\
## Codes with another status

Some failures keep their code, but come with a status that fits the request:"""

IN_PROBLEMS = """\
## Codes in `problems`

A refused catalog or decision has a member `problems`, which lists each reason with the stream, the
field and a `code` of its own. It is one of the codes of a catalog with status 422 above, or of
these:"""


@dataclass(frozen=True)
class Computed:
    """What a `code=` argument can be that is not written out where the error is raised."""

    codes: tuple[str, ...]
    when: str = ""
    """When the error has the code of another one; then it is in the table of such codes."""


@dataclass(frozen=True, order=True)
class Found:
    """A code that the source has, with one of the statuses and titles that it is answered with."""

    status: int
    code: str
    title: str
    description: str = ""
    """From the docstring of the error's class."""
    when: str = ""
    """As in Computed."""

    @property
    def meaning(self) -> str:
        """What it means, for readers of the page."""
        return MEANINGS.get((self.status, self.code), self.description)


@cache
def computed() -> dict[tuple[str, str], Computed]:
    """By module and call: the arguments that are computed."""
    catalogs = Computed(tuple(sorted(catalog_codes())))
    asked_before = "AAM asked Airbyte before recording anything; the request can be repeated."
    return {
        ("services.drift_repair_agent.applying.preflight", "Invalid(code=code or error.code)"): (
            catalogs
        ),
        ("shared.airbyte_reads", "Unavailable(code=error.code)"): Computed(
            _codes(UpstreamUnreachable, UpstreamUnknown, UpstreamConflict, UpstreamDenied),
            asked_before,
        ),
        ("services.drift_repair_agent.repairs.executor", "Invalid(code=error.code)"): catalogs,
        (
            "services.drift_repair_agent.repairs.current_state",
            "Conflict(code=error.code)",
        ): Computed(
            ("invalid_catalog", DUPLICATE_STREAM),
            "The newest snapshot of the source cannot be read for this repair.",
        ),
        ("services.orchestrator.credentials", "Invalid(code=error.code)"): Computed(
            tuple(sorted(_FOR_GOOD)),
            "The auth_broker cannot read the credential that is named.",
        ),
        ("services.orchestrator.catalog_adoption", "Invalid(code=error.code)"): catalogs,
        ("services.orchestrator.importer", "Invalid(code=error.code)"): catalogs,
        ("services.orchestrator.sagas.onboard", "DiscoverFailed(code=code)"): Computed(
            (DUPLICATE_STREAM, DiscoverFailed.code)
        ),
        ("services.orchestrator.sagas.onboard", "Invalid(code=error.code)"): catalogs,
        ("shared.airbyte_client._access_tokens", "UpstreamNoToken(code=other.code)"): Computed(
            ("upstream_not_airbyte",),
            "Another server answered instead of Airbyte's token endpoint.",
        ),
        ("shared.operations._begin", "NotActive(code=code)"): Computed(
            (
                *("heal_in_progress", "archiving", "cancelling", "editing", "rotating"),
                *("upgrading", NotActive.code),
            )
        ),
        ("shared.operations._runner", "DeadlinePassed(code=_deadline_code(operation))"): Computed(
            tuple(f"{_DEADLINE_OF.get(kind, kind)}_deadline" for kind in sorted(_kinds()))
        ),
    }


def write() -> str:
    """The page."""
    rows: dict[tuple[int, str], list[Found]] = {}
    found = find()
    for one in sorted(found):
        if not one.when:
            rows.setdefault((one.status, one.code), []).append(one)
    return page(
        "# Errors",
        NOTICE,
        INTRODUCTION,
        "## Codes by status",
        table(("status", "code", "title", "meaning"), map(_row, rows.values())),
        OTHER_STATUSES,
        table(("status", "codes", "when"), _passed_on(found, known=set(rows))),
        IN_PROBLEMS,
        table(
            ("code", "meaning"),
            [
                (code(name), PROBLEMS[name])
                for name in sorted(problem_codes() - catalog_codes())
                if (422, name) not in rows
            ],
        ),
    )


def _row(same: list[Found]) -> tuple[str, ...]:
    first = same[0]
    titles = " or ".join(sorted({one.title for one in same}))
    meaning = next((one.meaning for one in same if one.meaning), "")
    status = "other" if first.status == ANY_STATUS else str(first.status)
    return status, code(first.code), titles, meaning


def _passed_on(found: set[Found], *, known: set[tuple[int, str]]) -> Iterator[tuple[str, ...]]:
    groups: dict[tuple[int, str], set[str]] = {}
    for one in found:
        if one.when and (one.status, one.code) not in known:
            groups.setdefault((one.status, one.when), set()).add(one.code)
    for (status, when), codes in sorted(groups.items()):
        yield str(status), ", ".join(map(code, sorted(codes))), when


def find() -> set[Found]:
    """Every code of the source."""
    _import_all()
    return {*_of_classes(AamError), *_of_arguments(), *_of_http()}


def _of_classes(cls: type[AamError]) -> Iterator[Found]:
    """The codes of a class and of those below it; tests may have classes of their own."""
    is_ours = cls.__module__.startswith(("services.", "shared."))
    # It never leaves the executor, which waits and tries again.
    if is_ours and "code" in cls.__dict__ and cls is not StillRunning:
        yield Found(cls.status, cls.code, cls.title, _first_sentence(cls))
    for child in cls.__subclasses__():
        yield from _of_classes(child)


def _first_sentence(cls: type) -> str:
    paragraph = (getdoc(cls) or "").partition("\n\n")[0]
    return one_line(paragraph)


def _of_arguments() -> Iterator[Found]:
    for module, error, call, value in _arguments():
        codes, when = _values(module, value), ""
        if codes is None:
            place = _place(module, call, value)
            if place not in computed():
                raise LookupError(f"{place} is computed: say in `computed` what it can be")
            codes, when = computed()[place].codes, computed()[place].when
        for one in codes:
            yield Found(error.status, one, error.title, when=when)


def computed_places() -> set[tuple[str, str]]:
    """The arguments that are computed, as the source has them."""
    return {
        _place(module, call, value)
        for module, _, call, value in _arguments()
        if _values(module, value) is None
    }


def _arguments() -> Iterator[tuple[str, type[AamError], ast.Call, ast.expr]]:
    """Each error that is made with a `code=`: the module, the class, the call, the argument."""
    for module, call in _calls("services", "shared"):
        for keyword in call.keywords:
            if keyword.arg == "code" and module != AamError.__module__:
                error = _error_of(module, call.func)
                if error is not None:
                    yield module, error, call, keyword.value


def _place(module: str, call: ast.Call, value: ast.expr) -> tuple[str, str]:
    return module, f"{ast.unparse(call.func)}(code={ast.unparse(value)})"


def _of_http() -> Iterator[Found]:
    """The codes that are answered without an error class, by the framework and the protocol."""
    statuses = {"method_not_allowed": 405, "no_such_route": 404, "http_error": ANY_STATUS}
    for node in ast.walk(_tree("shared/http/problems.py")):
        match node:
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name("code"), *_])],
                value=ast.Tuple(elts=[ast.Constant(str(name)), title, *_]),
            ):
                shown = title.value if isinstance(title, ast.Constant) else "HTTP's own"
                yield Found(statuses[name], name, str(shown))
    for node in ast.walk(_tree("shared/http/uvicorn_protocol.py")):
        match node:
            case ast.Assign(
                targets=[ast.Attribute(attr="_refusal")],
                value=ast.Tuple(elts=[ast.Constant(int(status)), ast.Constant(str(name)), _]),
            ):
                yield Found(status, name, "as `detail`")


def catalog_codes() -> set[str]:
    """The codes of the problems that a catalog of a caller or a source can have."""
    return _codes_of_problems("shared.domain.catalog")


def problem_codes() -> set[str]:
    """Those, and the codes of decisions that cannot be followed."""
    return catalog_codes() | _codes_of_problems("services.drift_repair_agent.healing")


_ARGUMENT_OF = {
    "because": (0,),
    "Problem": (2,),
    "_problem": (0,),
    "problem": (0,),
    "_refuse": (0, 1),
}
"""Where the functions that note a problem take its code."""


def _codes_of_problems(package: str) -> set[str]:
    found: set[str] = set()
    for module, call in _calls(package):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        for position in _ARGUMENT_OF.get(name, ()):
            codes = _values(module, call.args[position]) if position < len(call.args) else None
            if codes is not None:
                found.update(codes)
                break
    return found


def _kinds() -> set[str]:
    """The kinds of operations that the services know how to run."""
    return {
        call.args[0].value
        for _, call in _calls("services")
        if ast.unparse(call.func) == "operations.register"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def _codes(*classes: type[AamError]) -> tuple[str, ...]:
    """The codes of classes and of those below them."""
    return tuple(sorted({found.code for cls in classes for found in _of_classes(cls)}))


def _values(module: str, node: ast.expr) -> tuple[str, ...] | None:
    """What an expression is, where it is written out or a constant of its module."""
    if isinstance(node, ast.Constant):
        return (node.value,) if isinstance(node.value, str) else None
    if isinstance(node, ast.IfExp):
        one, other = _values(module, node.body), _values(module, node.orelse)
        return None if one is None or other is None else one + other
    value = _named(module, node)
    return (value,) if isinstance(value, str) else None


def _error_of(module: str, node: ast.expr) -> type[AamError] | None:
    """The error class that a call makes, by itself or by a function that returns one."""
    error = _named(module, node)
    if isinstance(error, MethodType):
        error = error.__self__
    elif isinstance(error, FunctionType):
        error = getattr(
            import_module(error.__module__), str(error.__annotations__.get("return")), None
        )
    return error if isinstance(error, type) and issubclass(error, AamError) else None


def _named(module: str, node: ast.expr) -> object:
    """What a name, or an attribute of it, is in a module; None for local variables."""
    if isinstance(node, ast.Name):
        return getattr(import_module(module), node.id, None)
    if isinstance(node, ast.Attribute):
        return getattr(_named(module, node.value), node.attr, None)
    return None


def _calls(*packages: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in packages, with the module that it is in."""
    for package in packages:
        for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts).removesuffix(".__init__")
            for node in ast.walk(_tree(str(path.relative_to(ROOT)))):
                if isinstance(node, ast.Call):
                    yield module, node


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def _import_all() -> None:
    for package in (services, shared):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
