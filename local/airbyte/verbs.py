"""What a connector can be asked, and what its messages mean: spec, check, discover, read.

Messages decide first, the exit code second: a failed check may end with 0, and a connector that
could not reach its API ends without the message that was asked for. A CONTROL message with a new
configuration (a rotated token, say) is handed on from every verb, and never logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from local.airbyte import catalog
from local.airbyte.job_logs import JobLog
from local.airbyte.runner import ConnectorFailed, Message, Process, Runner, failure, parse
from local.airbyte.settings import Settings
from local.airbyte.store import Connector, InstallFailed, Store

NewConfig = Callable[[Mapping[str, Any]], None]


class _Kind(msgspec.Struct):
    """Only the type of a message; the rest of a line is skipped."""

    type: str


_kind = msgspec.json.Decoder(_Kind)


@dataclass(frozen=True)
class Check:
    """The connector's own verdict on a configuration."""

    succeeded: bool
    message: str | None


@dataclass(frozen=True)
class Reading:
    """A `read` at work."""

    process: Process
    on_config: NewConfig
    log: JobLog

    async def messages(self) -> AsyncIterator[tuple[Message, int]]:
        """RECORD and STATE messages with their length in bytes, until the connector has ended well.

        Raises:
            ConnectorFailed: it reported an error, ended with one, or took too long. What came
                before stays true.
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
                self.log.hear(message)
                failed = _heard(message, self.on_config) or failed
        code = await self.process.exit_code()
        if failed is not None:
            raise failed
        if code != 0:
            raise ConnectorFailed(f"The connector ended with exit code {code}.")


@dataclass(frozen=True)
class Verbs:
    """Asks connectors, installing them on first use."""

    settings: Settings
    store: Store
    runner: Runner

    async def spec(self, connector: Connector) -> Message:
        """The connector's specification, asked once per installed version."""
        await self._installed(connector)
        kept = self.store.kept_spec(connector)
        if kept is not None:
            return kept
        async with self._run(connector, "spec", {}) as process:
            answer = await self._terminal(process, "SPEC", _ignore)
        spec: Message = msgspec.json.decode(answer)["spec"]
        self.store.keep_spec(connector, spec)
        return spec

    async def check(
        self, connector: Connector, config: Mapping[str, Any], on_config: NewConfig, log: JobLog
    ) -> Check:
        """Whether the configuration works.

        Raises:
            ConnectorFailed: the connector did not come to a verdict.
        """
        async with self._run(connector, "check", {"config": config}, log) as process:
            answer = await self._terminal(process, "CONNECTION_STATUS", on_config)
        status = msgspec.json.decode(answer)["connectionStatus"]
        return Check(status["status"] == "SUCCEEDED", status.get("message"))

    async def discover(
        self, connector: Connector, config: Mapping[str, Any], on_config: NewConfig, log: JobLog
    ) -> bytes:
        """The catalog the source offers, as the connector wrote it.

        Raises:
            ConnectorFailed: there is none.
        """
        async with self._run(connector, "discover", {"config": config}, log) as process:
            line = await self._terminal(process, "CATALOG", on_config)
        return await asyncio.to_thread(catalog.offered_by, line)

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
        """The connector reading; it is ended when the block is left."""
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

    async def _terminal(self, process: Process, wanted: str, on_config: NewConfig) -> bytes:
        """The last line of the wanted type; a reported error counts only where there is none."""
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
                process.log.hear(parse(line) or {})
            if kind in {"TRACE", "CONTROL"}:
                failed = _heard(parse(line) or {"type": kind}, on_config) or failed
        code = await process.exit_code()
        if found is not None:
            return found
        raise failed or ConnectorFailed(
            f"The connector ended with exit code {code} and without an answer."
        )


def _heard(message: Message, on_config: NewConfig) -> ConnectorFailed | None:
    """Act on a CONTROL message; the failure a TRACE message reports, if it does."""
    if message["type"] == "CONTROL":
        config = ((message.get("control") or {}).get("connectorConfig") or {}).get("config")
        if isinstance(config, dict):
            on_config(config)
    elif message["type"] == "TRACE" and (message.get("trace") or {}).get("type") == "ERROR":
        return failure(message["trace"])
    return None


def _ignore(_config: Mapping[str, Any]) -> None:
    """A specification is asked without a configuration, so there is none to renew."""
