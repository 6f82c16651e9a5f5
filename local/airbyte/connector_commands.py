"""The connector commands (spec, check, discover, read) and the meaning of their messages.

Messages take precedence over the exit code: a failed check may exit with 0, and a connector that
could not reach its API exits without the requested message. A CONTROL message with a new
configuration (a rotated token, for example) is passed on by every command and never logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from local.airbyte import catalog
from local.airbyte.api.backend import Check
from local.airbyte.connector import Connector
from local.airbyte.connector_process import (
    ConnectorFailed,
    Message,
    Process,
    Runner,
    failure,
    parse,
)
from local.airbyte.connector_store import InstallFailed, Store
from local.airbyte.job_logs import JobLog
from local.airbyte.manifests import INJECTED
from local.airbyte.settings import Settings

NewConfig = Callable[[Mapping[str, Any]], None]


class _Kind(msgspec.Struct):
    """Only the type of a message; the rest of the line is not decoded."""

    type: str


_kind = msgspec.json.Decoder(_Kind)


@dataclass(frozen=True)
class Reading:
    """A `read` in progress."""

    process: Process
    on_config: NewConfig
    log: JobLog

    async def messages(self) -> AsyncIterator[tuple[Message, int]]:
        """Yield RECORD and STATE messages with their length in bytes, until the connector succeeds.

        Raises:
            ConnectorFailed: it reported an error, exited with an error code, or took too long. The
                messages received before remain valid.
        """
        failed: ConnectorFailed | None = None
        async for line in self.process.lines():
            message = parse(line)
            if message is None:
                self.log.output(line)
                continue
            kind = message["type"]
            if kind in {"RECORD", "STATE"}:
                yield message, len(line)
            else:
                self.log.log_message(message)
                failed = _handle(message, self.on_config) or failed
        code = await self.process.exit_code()
        if failed is not None:
            raise failed
        if code != 0:
            raise ConnectorFailed(f"The connector ended with exit code {code}.")


@dataclass(frozen=True)
class ConnectorCommands:
    """Runs connector commands, installing connectors on first use."""

    settings: Settings
    store: Store
    runner: Runner

    async def spec(self, connector: Connector) -> Message:
        """Return the connector's specification; runs once per installed version.

        Raises:
            ConnectorFailed: it could not be installed, or returned no specification.
        """
        if connector.manifest is not None:
            return connector.manifest.specification
        await self._installed(connector)
        stored = self.store.stored_spec(connector)
        if stored is not None:
            return stored
        async with self._run(connector, "spec", {}) as process:
            answer = await self._final_message(process, "SPEC", _ignore)
        spec: Message = msgspec.json.decode(answer)["spec"]
        self.store.store_spec(connector, spec)
        return spec

    async def check(
        self, connector: Connector, config: Mapping[str, Any], on_config: NewConfig, log: JobLog
    ) -> Check:
        """Check whether the configuration works.

        Raises:
            ConnectorFailed: the connector did not reach a verdict.
        """
        async with self._run(connector, "check", {"config": config}, log) as process:
            answer = await self._final_message(process, "CONNECTION_STATUS", on_config)
        status = msgspec.json.decode(answer)["connectionStatus"]
        return Check(status["status"] == "SUCCEEDED", status.get("message"))

    async def discover(
        self, connector: Connector, config: Mapping[str, Any], on_config: NewConfig, log: JobLog
    ) -> bytes:
        """Return the source's catalog, as the connector wrote it.

        Raises:
            ConnectorFailed: the connector returned no catalog.
        """
        async with self._run(connector, "discover", {"config": config}, log) as process:
            line = await self._final_message(process, "CATALOG", on_config)
        return await asyncio.to_thread(catalog.extract_catalog, line)

    @asynccontextmanager
    async def read(
        self,
        connector: Connector,
        config: Mapping[str, Any],
        streams: Message,
        state: list[Message],
        on_config: NewConfig,
        log: JobLog,
    ) -> AsyncIterator[Reading]:
        """Start a read; the connector is ended when the block exits."""
        documents: dict[str, Any] = {"config": config, "catalog": streams}
        if state:
            documents["state"] = state
        async with self._run(connector, "read", documents, log) as process:
            yield Reading(process, on_config, log)

    @asynccontextmanager
    async def _run(
        self,
        connector: Connector,
        verb: str,
        documents: Mapping[str, Any],
        log: JobLog | None = None,
    ) -> AsyncIterator[Process]:
        await self._installed(connector)
        if connector.manifest is not None:
            config = {**documents["config"], INJECTED: connector.manifest.document}
            documents = {**documents, "config": config}
        async with self.runner.run(
            self.store.executable(connector),
            verb,
            documents=documents,
            limits=getattr(self.settings, verb),
            extra_env=self.settings.connector_env.get(connector.name, {}),
            log=log,
        ) as process:
            yield process

    async def _installed(self, connector: Connector) -> None:
        try:
            await asyncio.to_thread(self.store.install, connector)
        except InstallFailed as error:
            raise ConnectorFailed(str(error)) from error

    async def _final_message(self, process: Process, wanted: str, on_config: NewConfig) -> bytes:
        """Return the last line of the wanted type, or raise the connector's reported error."""
        found: bytes | None = None
        failed: ConnectorFailed | None = None
        async for line in process.lines():
            try:
                kind = _kind.decode(line).type
            except msgspec.DecodeError:
                if process.log is not None:
                    process.log.output(line)
                continue
            if kind == wanted:
                found = line
            if process.log is not None and kind in {"LOG", "TRACE", "CONNECTION_STATUS"}:
                process.log.log_message(parse(line) or {})
            if kind in {"TRACE", "CONTROL"}:
                failed = _handle(parse(line) or {"type": kind}, on_config) or failed
        code = await process.exit_code()
        if found is not None:
            return found
        raise failed or ConnectorFailed(
            f"The connector ended with exit code {code} and without a result."
        )


def _handle(message: Message, on_config: NewConfig) -> ConnectorFailed | None:
    """Handle a CONTROL message; return the failure that a TRACE message reports, if any."""
    if message["type"] == "CONTROL":
        config = ((message.get("control") or {}).get("connectorConfig") or {}).get("config")
        if isinstance(config, dict):
            on_config({name: value for name, value in config.items() if name != INJECTED})
    elif message["type"] == "TRACE" and (message.get("trace") or {}).get("type") == "ERROR":
        return failure(message["trace"])
    return None


def _ignore(_config: Mapping[str, Any]) -> None:
    """Ignore a renewed configuration: `spec` runs without one."""
