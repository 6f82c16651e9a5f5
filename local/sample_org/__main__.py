"""`python -m local.sample_org` runs the sample org, and changes it while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import json
import os
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from pydantic import ValidationError

from local.request_guard import token_file, token_of
from local.sample_org.running_org import Behaviour, Failure, JournalUnreadable
from local.sample_org.settings import Settings
from shared.observability import logs

log = logs.get(__name__)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ObjectName = Annotated[str, typer.Argument(metavar="OBJECT", help="An API name, like Account.")]
FieldName = Annotated[str, typer.Argument(metavar="FIELD", help="An API name, like Region__c.")]
Fail = Annotated[
    list[str] | None, typer.Option(help="ENDPOINT:STATUS or ENDPOINT:STATUS:TIMES; repeatable.")
]


@app.command()
def serve(
    objects: Annotated[int | None, typer.Option(help="Number of generated objects.")] = None,
    fields: Annotated[int | None, typer.Option(help="Fields of each generated object.")] = None,
    latency_ms: Annotated[int | None, typer.Option(help="Added to every call.")] = None,
    fail: Fail = None,
) -> None:
    """Run the org until it is interrupted."""
    logs.set_up("sample_org")
    sizes = {"objects": objects, "fields": fields}
    settings = _settings(**{key: value for key, value in sizes.items() if value is not None})
    behaviour: dict[str, Any] = {}
    if latency_ms is not None:
        behaviour["latency_ms"] = latency_ms
    if fail:
        behaviour["failures"] = [_failure(text) for text in fail]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(settings, behaviour))
    except (JournalUnreadable, ValidationError) as error:
        _stop(_describe(error) if isinstance(error, ValidationError) else str(error))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        ports = f"SAMPLE_ORG_PORT {settings.port}, SAMPLE_ORG_PROXY_PORT {settings.proxy_port}"
        _stop(f"A port of the sample org is taken: {ports}.")


@app.command()
def status() -> None:
    """Show the objects, the behaviour and the changes so far."""
    org = _call("GET", "/org")
    for name, seen in org["objects"].items():
        mark = " (hidden)" if seen["hidden"] else ""
        typer.echo(f"{name:24}{seen['rows']:>8} rows {seen['fields']:>4} fields{mark}")
    if org["generated_objects"]:
        typer.echo(f"and {org['generated_objects']} generated objects")
    typer.echo(f"behaviour  {json.dumps(org['behaviour'])}")
    typer.echo(f"calls      {json.dumps(org['calls'])}")
    typer.echo(f"changes    {len(org['changes'])} since {org['born'][:10]}")


@app.command()
def add_field(
    object_name: ObjectName,
    field: FieldName,
    type: Annotated[
        str, typer.Option(help="A Salesforce type, like string or currency.")
    ] = "string",
    value: Annotated[
        list[str] | None, typer.Option(help="Given to rows in turn; repeatable.")
    ] = None,
) -> None:
    """Add a custom field with values in the rows, or restore a dropped standard field."""
    members: dict[str, Any] = {"name": field, "type": type}
    if value:
        members["values"] = [_plain(text, type) for text in value]
    _change("POST", f"/org/objects/{quote(object_name, safe='')}/fields", members)


@app.command()
def drop_field(object_name: ObjectName, field: FieldName) -> None:
    """Delete a custom field, or hide a standard one."""
    _change("DELETE", _field_path(object_name, field))


@app.command()
def rename_field(object_name: ObjectName, field: FieldName, to: str) -> None:
    """Rename a custom field."""
    _change("POST", f"{_field_path(object_name, field)}/rename", {"to": to})


@app.command()
def retype_field(object_name: ObjectName, field: FieldName, type: str) -> None:
    """Change the type of a custom field."""
    _change("POST", f"{_field_path(object_name, field)}/retype", {"type": type})


@app.command()
def forbid_field(object_name: ObjectName, field: FieldName) -> None:
    """Make queries reject a field that is still described."""
    _change("POST", f"{_field_path(object_name, field)}/forbid")


@app.command()
def allow_field(object_name: ObjectName, field: FieldName) -> None:
    """Let queries read a forbidden field again."""
    _change("POST", f"{_field_path(object_name, field)}/allow")


@app.command()
def add_object(name: ObjectName, rows: int = 10) -> None:
    """Add a custom object."""
    _change("POST", "/org/objects", {"name": name, "rows": rows})


@app.command()
def hide_object(name: ObjectName) -> None:
    """Hide an object from the connected user."""
    _change("POST", f"/org/objects/{quote(name, safe='')}/hide")


@app.command()
def show_object(name: ObjectName) -> None:
    """Show a hidden object to the connected user again."""
    _change("POST", f"/org/objects/{quote(name, safe='')}/show")


@app.command()
def touch(name: ObjectName, count: int = 1) -> None:
    """Give the first rows a new SystemModstamp."""
    _change("POST", f"/org/objects/{quote(name, safe='')}/touch", {"count": count})


@app.command("settings")
def change_settings(
    latency_ms: int | None = None,
    page_size: int | None = None,
    rotate: Annotated[bool | None, typer.Option(help="Rotate the refresh token.")] = None,
    fail: Fail = None,
    heal: Annotated[bool, typer.Option(help="Stop all simulated failures.")] = False,
) -> None:
    """Change how the org behaves; omitted options keep their values."""
    settings: dict[str, Any] = {
        "latency_ms": latency_ms,
        "page_size": page_size,
        "rotate_refresh_token": rotate,
        "failures": [] if heal else [_failure(text) for text in fail] if fail else None,
    }
    members = {key: value for key, value in settings.items() if value is not None}
    typer.echo(f"behaviour  {json.dumps(_call('PATCH', '/org/settings', members))}")


@app.command()
def expire_sessions() -> None:
    """Invalidate every access token."""
    _change("POST", "/org/expire-sessions")


@app.command()
def reset() -> None:
    """Discard every change, setting and rotated token."""
    _change("POST", "/org/reset")


async def _serve(settings: Settings, behaviour: dict[str, Any]) -> None:
    from local.sample_org.server import running  # noqa: PLC0415 -- takes a second to import, and only serve needs it

    async with running(settings) as org:
        if behaviour:
            changed = org.live.behaviour.model_dump() | behaviour
            org.live.behave(Behaviour.model_validate(changed))
        log.info(
            "sample_org_ready",
            url=org.url,
            proxy=org.proxy_url,
            ca_bundle=str(org.ca_bundle.resolve()),
            pid=os.getpid(),
        )
        await asyncio.wait({org.stopped})


def _change(method: str, path: str, members: dict[str, Any] | None = None) -> None:
    typer.echo(_call(method, path, members)["changed"])


def _call(method: str, path: str, members: dict[str, Any] | None = None) -> dict[str, Any]:
    settings = _settings()
    port = settings.port
    if not token_file(settings.state_dir).exists():
        _stop(f"No sample org has run in {settings.state_dir} (SAMPLE_ORG_STATE_DIR).")
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {token_of(settings.state_dir)}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = None if members is None else json.dumps(members)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content: dict[str, Any] = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        _stop(f"No sample org responds on port {port} (SAMPLE_ORG_PORT).")
    finally:
        connection.close()
    if answer.status >= 400:
        _stop(str(content.get("detail", f"The org answered {answer.status}.")))
    return content


def _settings(**given: int) -> Settings:
    try:
        return Settings.model_validate(Settings().model_dump() | given)
    except ValidationError as error:
        _stop(_describe(error))


def _describe(error: ValidationError) -> str:
    """Describe which settings are invalid and why, without their values."""
    wrong = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"SAMPLE_ORG_{str(item['loc'][0]).upper()}: {item['msg']}" for item in wrong)


def _stop(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _field_path(object_name: str, field: str) -> str:
    return f"/org/objects/{quote(object_name, safe='')}/fields/{quote(field, safe='')}"


def _failure(text: str) -> dict[str, Any]:
    endpoint, _, rest = text.partition(":")
    status_code, _, times = rest.partition(":")
    members = {"endpoint": endpoint, "status": status_code, "times": times or None}
    try:
        return Failure.model_validate(members).model_dump()
    except ValueError as error:
        raise typer.BadParameter("expected ENDPOINT:STATUS or ENDPOINT:STATUS:TIMES") from error


def _plain(text: str, kind: str) -> Any:
    """Parse a command line value as JSON would have it; strings stay strings."""
    if kind not in {"boolean", "int", "double", "currency", "percent"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    app(prog_name="python -m local.sample_org")
