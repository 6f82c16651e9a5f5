"""Sources and destinations of the fake Airbyte: life cycle, checks, discoveries."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import orjson

from local.airbyte.catalog import config_read, stream_read
from local.airbyte.errors import Refusal, forbidden, missing, not_found, not_implemented
from local.airbyte.releases import Release
from tests.fakes.airbyte_server._answers import Answer, Failure, epoch_now, job_info, reason
from tests.fakes.airbyte_server._catalogs import proposed
from tests.fakes.airbyte_server._definitions import (
    HARDCODED_RECORDS,
    POSTGRES,
    SALESFORCE,
    destination_definition,
    masked,
    public,
    source_definition,
    unmasked,
    validate,
)
from tests.fakes.airbyte_server._offers import Offers

Json = dict[str, Any]

WORKSPACE_ID = "7c1f0d5e-2a53-4a0e-9b63-0a0a0a0a0a01"


@dataclass(frozen=True)
class Kind:
    word: Literal["source", "destination"]


SOURCE, DESTINATION = Kind("source"), Kind("destination")


class Actors(Offers):
    """The fake Airbyte's sources and destinations."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.sources: dict[str, Json] = {}
        self.destinations: dict[str, Json] = {}
        self.connections: dict[str, Json] = {}
        self.discoveries: Counter[str] = Counter()
        self.commands: dict[str, Json] = {}
        self.source_definitions = [
            source_definition(SALESFORCE, "Salesforce", "source-salesforce", "2.10.3"),
            source_definition(
                HARDCODED_RECORDS, "Hardcoded Records", "source-hardcoded-records", "0.0.48"
            ),
        ]
        self.destination_definitions = [
            destination_definition(POSTGRES, "Postgres", "destination-postgres", "2.4.0"),
        ]
        self.unknown_is_forbidden = False
        self.command_statuses: list[str | None] = ["running"]

        self._deleted: dict[str, Json] = {}
        self._cached: dict[str, tuple[str, Any]] = {}
        self._open_discoveries: set[str] = set()
        self._most_open = 0
        self._failing_checks: dict[str | None, Failure] = {}
        self._accepted: Json = {}
        self._renewed: Json = {}
        self._renewed_by_discovery: dict[str, Json] = {}

    # Scripting

    @property
    def version(self) -> str:
        """The emulated release; setting it switches the release and keeps all state."""
        return self._version

    @version.setter
    def version(self, version: str) -> None:
        self._version = version
        self.release = Release(version)

    def fail_check(
        self,
        message: str = "Authentication failed.",
        *,
        failure_type: str = "config_error",
        job: bool = False,
        source: str | UUID | None = None,
        times: int | None = None,
    ) -> None:
        """Make checks answer `failed`; with `job` the check itself fails, and has no status."""
        key = None if source is None else str(source)
        self._failing_checks[key] = Failure(failure_type, message, None, times, job)

    def accept_only(self, **fields: Any) -> None:
        """Make checks succeed only for configurations with these values."""
        self._accepted = fields

    def renew(self, source_id: str | UUID, **fields: Any) -> None:
        """Simulate a token renewal by a connector: Airbyte stores the new token in the source."""
        held = self.sources[str(source_id)]
        held["connectionConfiguration"] = held["connectionConfiguration"] | fields

    def renew_on_check(self, **fields: Any) -> None:
        """Make the next successful check renew these fields; then only the new values are valid."""
        self._renewed = fields

    def renew_on_discovery(self, source_id: str | UUID, **fields: Any) -> None:
        """Make the source's next successful discovery renew these fields.

        Only sources/discover_schema reports this; the discover command, since 1.7, does not: a
        client has to read the source's configuration.
        """
        self._renewed_by_discovery[str(source_id)] = fields

    def add_source(self, name: str, definition_id: str = SALESFORCE, **configuration: Any) -> Json:
        """Add a source, as if it were created manually."""
        return self._add_actor(SOURCE, name, definition_id, configuration)

    def add_destination(
        self, name: str = "Warehouse", definition_id: str = POSTGRES, **configuration: Any
    ) -> Json:
        """Add a destination, as if it were created manually."""
        return self._add_actor(DESTINATION, name, definition_id, configuration)

    def _unknown(self, kind: str, object_id: object) -> Refusal:
        return forbidden() if self.unknown_is_forbidden else not_found(kind, object_id)

    # Definitions

    def _list_source_definitions(self, _: Json) -> Json:
        return {"sourceDefinitions": [public(one) for one in self.source_definitions]}

    def _list_destination_definitions(self, _: Json) -> Json:
        return {"destinationDefinitions": [public(one) for one in self.destination_definitions]}

    def _get_source_definition(self, body: Json) -> Json:
        return public(self._definition(SOURCE, need(body, "sourceDefinitionId")))

    def _get_destination_definition(self, body: Json) -> Json:
        return public(self._definition(DESTINATION, need(body, "destinationDefinitionId")))

    def _source_specification(self, body: Json) -> Json:
        return self._specification(SOURCE, body)

    def _destination_specification(self, body: Json) -> Json:
        modes = ["overwrite", "append", "append_dedup"]
        return {
            **self._specification(DESTINATION, body),
            "supportedDestinationSyncModes": modes,
        }

    def _specification(self, kind: Kind, body: Json) -> Json:
        definition = self._definition(kind, need(body, f"{kind.word}DefinitionId"))
        need(body, "workspaceId")
        return {
            f"{kind.word}DefinitionId": definition[f"{kind.word}DefinitionId"],
            "documentationUrl": definition["documentationUrl"],
            "connectionSpecification": definition["_specification"],
            "jobInfo": job_info("get_spec", succeeded=True),
        }

    def _definition(self, kind: Kind, definition_id: str) -> Json:
        offered = self.source_definitions if kind.word == "source" else self.destination_definitions
        for definition in offered:
            if definition[f"{kind.word}DefinitionId"] == definition_id:
                return definition
        raise self._unknown(f"STANDARD_{kind.word.upper()}_DEFINITION", definition_id)

    # Sources and destinations

    def _held(self, kind: Kind) -> dict[str, Json]:
        return self.sources if kind.word == "source" else self.destinations

    def _actor(self, kind: Kind, body: Json) -> Json:
        actor_id = str(need(body, f"{kind.word}Id"))
        held = self._held(kind).get(actor_id)
        if held is None:
            raise self._unknown(f"{kind.word.upper()}_CONNECTION", actor_id)
        return held

    def _create_actor(self, kind: Kind, body: Json) -> Json:
        definition_id = need(body, f"{kind.word}DefinitionId")
        configuration = need(body, "connectionConfiguration")
        if need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        definition = self._definition(kind, definition_id)
        validate(configuration, definition["_specification"])
        made = self._add_actor(kind, need(body, "name"), definition_id, configuration)
        return self._read_actor(kind, made)

    def _add_actor(self, kind: Kind, name: str, definition_id: str, configuration: Json) -> Json:
        definition = self._definition(kind, definition_id)
        made = {
            f"{kind.word}Id": str(uuid4()),
            f"{kind.word}DefinitionId": definition_id,
            "workspaceId": WORKSPACE_ID,
            "connectionConfiguration": configuration,
            "name": name,
            f"{kind.word}Name": definition["name"],
            "status": "active",
        }
        if self.release.since(1):
            made["createdAt"] = epoch_now()
        self._held(kind)[made[f"{kind.word}Id"]] = made
        return made

    def _read_actor(self, kind: Kind, held: Json) -> Json:
        definition = self._definition(kind, held[f"{kind.word}DefinitionId"])
        configuration = masked(held["connectionConfiguration"], definition["_specification"])
        return {**held, "connectionConfiguration": configuration}

    def _update_actor(self, kind: Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        definition = self._definition(kind, held[f"{kind.word}DefinitionId"])
        configuration = need(body, "connectionConfiguration")
        validate(configuration, definition["_specification"])
        kept = held["connectionConfiguration"]
        whole = unmasked(configuration, kept, definition["_specification"])
        held.update(connectionConfiguration=whole, name=need(body, "name"))
        return self._read_actor(kind, held)

    def _patch_actor(self, kind: Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        patch = body.get("connectionConfiguration") or {}
        return self._update_actor(
            kind,
            {
                **body,
                "name": body.get("name") or held["name"],
                "connectionConfiguration": {**held["connectionConfiguration"], **patch},
            },
        )

    def _list_actors(self, kind: Kind, body: Json) -> Json:
        if need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        found = list(self._held(kind).values())
        if not self.release.since(1, 8):
            return {f"{kind.word}s": [self._read_actor(kind, one) for one in found]}
        term = (body.get("filters") or {}).get("searchTerm")
        if term:
            like = re.compile(_ilike(term), re.IGNORECASE | re.DOTALL)
            found = [
                one
                for one in found
                if like.search(one["name"]) or like.search(one[f"{kind.word}Name"])
            ]
        found.sort(key=lambda one: (one["name"].lower(), one[f"{kind.word}Id"]))
        cursor = body.get("cursor")
        if cursor is not None:
            ids = [one[f"{kind.word}Id"] for one in found]
            found = found[ids.index(cursor) + 1 :] if cursor in ids else []
        size = body.get("pageSize") or 20
        total = len(found)
        return {
            f"{kind.word}s": [self._read_actor(kind, one) for one in found[:size]],
            "page_size": size,
            "num_connections": total,
        }

    def _delete_actor(self, kind: Kind, body: Json) -> Answer:
        held = self._actor(kind, body)
        actor_id = held[f"{kind.word}Id"]
        for connection in list(self.connections.values()):
            if connection[f"{kind.word}Id"] == actor_id:
                self._tombstone(connection)
        self._deleted[actor_id] = self._held(kind).pop(actor_id)
        return Answer(204)

    def _tombstone(self, connection: Json) -> None:
        connection_id = connection["connectionId"]
        del self.connections[connection_id]
        self._deleted[connection_id] = {**connection, "status": "deprecated"}

    def _check_actor_update(self, kind: Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        need(body, "name")
        specification = self._definition(kind, held[f"{kind.word}DefinitionId"])["_specification"]
        given = need(body, "connectionConfiguration")
        validate(given, specification)
        whole = unmasked(given, held["connectionConfiguration"], specification)
        return self._check(kind, held, whole)

    def _check_actor(self, kind: Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        return self._check(kind, held, held["connectionConfiguration"])

    def _check(self, kind: Kind, held: Json, configuration: Json) -> Json:
        failure = self._failure(self._failing_checks, held[f"{kind.word}Id"])
        if failure is None and not self._accepted.items() <= configuration.items():
            failure = Failure("config_error", "invalid_grant", None, None)
        config_type = f"check_connection_{kind.word}"
        if failure is None:
            info = job_info(config_type, succeeded=True)
            if self._renewed:
                # Airbyte stores the whole configuration that the connector returns.
                held["connectionConfiguration"] = {**configuration, **self._renewed}
                self._accepted, self._renewed = self._accepted | self._renewed, {}
                info["connectorConfigurationUpdated"] = True
            return {"status": "succeeded", "jobInfo": info}
        if failure.job:
            return {"jobInfo": job_info(config_type, succeeded=False, failure=failure)}
        return {
            "status": "failed",
            "message": failure.message,
            "jobInfo": job_info(config_type, succeeded=True),
        }

    def _failure(self, failing: dict[str | None, Failure], source_id: str) -> Failure | None:
        key = source_id if source_id in failing else None
        failure = failing.get(key)
        if failure is not None and failure.times is not None:
            failure.times -= 1
            if failure.times <= 0:
                del failing[key]
        return failure

    def _search_sources(self, _: Json) -> Json:
        """Always return an empty list, as real Airbyte does according to its source code."""
        return {"sources": []}

    # Discovery

    def _discover(self, body: Json) -> Json:
        source = self._actor(SOURCE, body)
        if body.get("connectionId") is not None:
            raise not_implemented("sources/discover_schema with a connectionId")
        source_id = source["sourceId"]
        if not body.get("disable_cache") and source_id in self._cached:
            catalog_id, found = self._cached[source_id]
            info = job_info("discover_schema", succeeded=True)
            info |= {"createdAt": 0, "endedAt": 0}
            return {"catalog": found, "catalogId": catalog_id, "jobInfo": info}
        is_renewed = source_id in self._renewed_by_discovery
        outcome = self._run_discovery(source_id)
        if isinstance(outcome, Failure):
            return {"jobInfo": job_info("discover_schema", succeeded=False, failure=outcome)}
        catalog_id, found = outcome
        info = job_info("discover_schema", succeeded=True)
        info["connectorConfigurationUpdated"] = is_renewed
        return {"catalog": found, "catalogId": catalog_id, "jobInfo": info}

    def _run_discovery(self, source_id: str) -> Failure | tuple[str, Any]:
        self.discoveries[source_id] += 1
        failure = self._failure(self._failing_discoveries, source_id)
        if failure is not None:
            return failure
        if source_id in self._renewed_by_discovery:
            self.renew(source_id, **self._renewed_by_discovery.pop(source_id))
        offered = self._next_offer(source_id)
        found = offered
        if isinstance(offered, dict):
            streams = offered.get("streams", [])
            found = {"streams": [self._discovered(pair, streams) for pair in streams]}
        digest = hashlib.sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self._cached[source_id] = (str(uuid5(NAMESPACE_URL, digest)), found)
        return self._cached[source_id]

    def _discovered(self, pair: Json, pairs: list[Json]) -> Json:
        if pair.get("config") is None:
            return proposed(pair["stream"], [one["stream"] for one in pairs], self.release)
        return {
            "stream": stream_read(pair["stream"], self.release),
            "config": config_read(pair["config"], self.release),
        }

    def _most_recent_catalog(self, body: Json) -> Json:
        source = self._actor(SOURCE, body)
        cached = self._cached.get(source["sourceId"])
        return {"updatedAt": epoch_now()} if cached is not None else {}

    # Commands

    def _run_discover_command(self, body: Json) -> Json:
        return self._run_command("discover", body)

    def _run_check_command(self, body: Json) -> Json:
        return self._run_command("check", body)

    def _run_command(self, kind: str, body: Json) -> Json:
        command_id = need(body, "id")
        actor_id = str(need(body, "actor_id"))
        if actor_id not in self.sources and actor_id not in self.destinations:
            raise forbidden()
        if command_id not in self.commands:
            actor = SOURCE if actor_id in self.sources else DESTINATION
            outcome = (
                self._run_discovery(actor_id)
                if kind == "discover"
                else self._check_actor(actor, {f"{actor.word}Id": actor_id})
            )
            self.commands[command_id] = {
                "kind": kind,
                "actor_id": actor_id,
                "statuses": [*self.command_statuses, "completed"],
                "outcome": outcome,
            }
            if kind == "discover":
                self._open_discoveries.add(command_id)
                self._most_open = max(self._most_open, len(self._open_discoveries))
        return {"id": command_id}

    def _command(self, body: Json) -> Json:
        command = self.commands.get(need(body, "id"))
        if command is None:
            raise forbidden()
        return command

    def _command_status(self, body: Json) -> Json:
        statuses = self._command(body)["statuses"]
        status = statuses[0]
        if len(statuses) > 1:
            statuses.pop(0)
        if status in ("completed", "cancelled"):
            self._open_discoveries.discard(body["id"])
        return {"id": body["id"]} | ({} if status is None else {"status": status})

    def _discover_output(self, body: Json) -> Json:
        command, told = self._command(body), {"id": body["id"]}
        still = self._still_running(command, body)
        if still is not None:
            return told | still
        if isinstance(command["outcome"], Failure):
            return told | {"status": "failed", "failureReason": reason(command["outcome"])}
        catalog_id, found = command["outcome"]
        return told | {"status": "succeeded", "catalog": found, "catalogId": catalog_id}

    def _check_output(self, body: Json) -> Json:
        command, told = self._command(body), {"id": body["id"]}
        still = self._still_running(command, body)
        if still is not None:
            return told | still
        checked = command["outcome"]
        told["status"] = checked.get("status", "failed")
        if "message" in checked:
            told["message"] = checked["message"]
        if "failureReason" in checked["jobInfo"]:
            told["failureReason"] = checked["jobInfo"]["failureReason"]
        return told

    def _still_running(self, command: Json, body: Json) -> Json | None:
        if command["statuses"][0] in ("completed", "cancelled"):
            return None
        message = f"{body['id']} is still running, try again later."
        failure = Failure("transient_error", message, retryable=True, times=None)
        return {"status": "failed", "failureReason": reason(failure)}

    def _cancel_command(self, body: Json) -> Json:
        command = self._command(body)
        self._open_discoveries.discard(body["id"])
        if command["statuses"][0] != "completed":
            command["statuses"] = ["cancelled"]
            message = "The command was cancelled."
            command["outcome"] = Failure("manual_cancellation", message, None, None)
        return {"id": body["id"]}


def need(body: Json, name: str) -> Any:
    if body.get(name) is None:
        raise missing(name)
    return body[name]


def _ilike(term: str) -> str:
    """SQL's ILIKE '%term%', whose wildcards Airbyte does not escape."""
    wild = {"%": ".*", "_": "."}
    return "".join(wild.get(char, re.escape(char)) for char in term)
