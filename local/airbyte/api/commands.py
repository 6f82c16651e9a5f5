"""Commands: checks and discoveries in the background, since 1.7."""

from __future__ import annotations

from functools import partial
from typing import Any

from local.airbyte.api import reads
from local.airbyte.api.actors import KINDS
from local.airbyte.api.backend import Backend, Command, Kind
from local.airbyte.api.definitions import definition_of
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post
from local.airbyte.errors import forbidden

Json = dict[str, Any]
SINCE = (1, 7)


@post("commands/run/discover", since=SINCE)
async def run_discover(backend: Backend, body: Body) -> Json:
    """Start a discovery; a repeated id starts nothing."""
    command_id = body.text("id")
    _, source = _actor(backend, body, kinds=("source",))
    source_id = source["sourceId"]
    await backend.run_command(command_id, "discover", source_id, partial(backend.discover, source))
    return {"id": command_id}


@post("commands/run/check", since=SINCE)
async def run_check(backend: Backend, body: Body) -> Json:
    """Start a check of a source or destination, or of a configuration that belongs to none."""
    command_id, actor = body.text("id"), None
    if body.get("actor_id") is None:
        definition = definition_of(backend, "source", body.id("actor_definition_id"))
        config = body.required("config", dict)
    else:
        kind, actor = _actor(backend, body, kinds=KINDS)
        definition = definition_of(backend, kind, actor[f"{kind}DefinitionId"])
        config = actor["connectionConfiguration"]
    run = partial(backend.check, definition, actor, config)
    source_id = None if actor is None else actor.get("sourceId")
    await backend.run_command(command_id, "check", source_id, run)
    return {"id": command_id}


def _actor(backend: Backend, body: Body, *, kinds: tuple[Kind, ...]) -> tuple[Kind, Json]:
    actor_id = body.id("actor_id")
    for kind in kinds:
        for actor in backend.list_actors(kind):
            if actor[f"{kind}Id"] == actor_id:
                return kind, actor
    raise forbidden()


@post("commands/status", since=SINCE)
async def status(backend: Backend, body: Body) -> Json:
    """Return a command's status; a failed run is completed, too."""
    command = _command(backend, body)
    return reads.present({"id": command.id, "status": backend.command_status(command.id)})


@post("commands/cancel", since=SINCE)
async def cancel(backend: Backend, body: Body) -> Json:
    """Cancel a command that is still running."""
    command = _command(backend, body)
    await backend.cancel_command(command.id)
    return {"id": command.id}


@post("commands/output/check", since=SINCE)
async def check_output(backend: Backend, body: Body) -> Json:
    """Return the verdict of a check."""
    command = _command(backend, body)
    output = _output(backend, command, "check")
    if command.outcome is not None and command.outcome.check is not None:
        output["status"] = "succeeded" if command.outcome.check.succeeded else "failed"
        output["message"] = command.outcome.check.message
    if command.outcome is not None:
        output["connectorConfigurationUpdated"] = command.outcome.renewed
    return reads.present(output)


@post("commands/output/discover", since=SINCE)
async def discover_output(backend: Backend, body: Body) -> Json:
    """Return the catalog that a discovery found."""
    command = _command(backend, body)
    output = _output(backend, command, "discover")
    if command.outcome is not None and command.outcome.catalog_id is not None:
        source = backend.actor("source", str(command.source_id), with_deleted=True)
        catalog_id = command.outcome.catalog_id
        output |= {
            "status": "succeeded",
            "catalog": await backend.discovered(source, catalog_id),
            "catalogId": catalog_id,
        }
    return reads.present(output)


def _command(backend: Backend, body: Body) -> Command:
    command = backend.command(body.text("id"))
    if command is None:
        raise forbidden()
    return command


def _output(backend: Backend, command: Command, kind: str) -> Json:
    output: Json = {"id": command.id, "status": "failed"}
    if command.kind != kind or command.outcome is None:
        still = f"{command.id} is still running, try again later."
        reason = reads.failure_reason("airbyte_platform", "system_error", still, retryable=False)
        return output | {"failureReason": reason}
    lines = backend.log_lines(command.outcome.job_id)
    output["failureReason"] = command.outcome.failure
    if lines:
        output["logs"] = {"logType": "formatted", "logLines": lines}
    return output
