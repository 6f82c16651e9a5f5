"""The registry's functions as a state machine: whatever order they come in, its promises hold."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared import outbox, registry
from shared.database import Database
from shared.errors import NameTaken, NotActive, StaleCatalog
from shared.models import ConnectionStatus, VersionOrigin
from shared.outbox import EventType
from shared.postgres_address import postgres_address
from tests import factories

T = TypeVar("T")
NAMES = st.sampled_from(["a", "b", "c"])


class RegistryMachine(RuleBasedStateMachine):
    """Connections that are announced, healed, failed and archived, and a model of them."""

    url = ""
    owner_url = ""
    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.db = Database.at(postgres_address(self.url), application="machine")
        self.status: dict[UUID, str] = {}
        self.names: dict[UUID, str] = {}
        self.heads: dict[UUID, int] = {}
        self.heals: dict[UUID, UUID] = {}
        self.events: dict[UUID, int] = {}
        self.loop.run_until_complete(self._forget())

    async def _forget(self) -> None:
        sql = await asyncpg.connect(self.owner_url)
        await sql.execute("TRUNCATE connections CASCADE")
        await sql.close()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.db.close())
        self.loop.close()

    def _run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        async def transacted() -> T:
            async with self.db.transaction() as session:
                return await work(session)

        return self.loop.run_until_complete(transacted())

    def _sql(self, statement: str) -> list[Any]:
        async def execute(session: AsyncSession) -> list[Any]:
            result = await session.execute(text(statement))
            return list(result.all()) if statement.lstrip().startswith("SELECT") else []

        return self._run(execute)

    def _lives(self, name: str) -> bool:
        return any(
            known == name and self.status[id_] not in ("archived", "FAILED")
            for id_, known in self.names.items()
        )

    @rule(target=connections, name=NAMES)
    def announce(self, name: str) -> UUID:
        """A name is taken while its connection lives."""
        connection = factories.connection(name=name)
        taken = self._lives(name)
        try:
            self._run(lambda session: registry.insert_pending(session, connection))
        except NameTaken:
            assert taken
            return connection.id
        assert not taken
        self.status[connection.id], self.names[connection.id] = "PENDING", name
        self.heads[connection.id] = self.events[connection.id] = 0
        return connection.id

    @rule(id_=connections, expected=st.integers(0, 3))
    def append(self, id_: UUID, expected: int) -> None:
        """A version follows the one that its writer has read, and no other."""
        if self.status.get(id_) not in ("PENDING", "ACTIVE"):
            return

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, id_)
            row.airbyte_connection_id = row.airbyte_connection_id or uuid4()
            registry.append_version(
                session,
                row,
                b"{}",
                expected_version=expected,
                fingerprint="",
                origin=VersionOrigin.REPAIR,
                snapshot_id=None,
                requested_by=None,
            )
            row.status = ConnectionStatus.ACTIVE
            outbox.record(session, EventType.CATALOG_APPLIED, row)

        try:
            self._run(write)
        except StaleCatalog:
            assert expected != self.heads[id_]
            return
        assert expected == self.heads[id_]
        self.heads[id_] += 1
        self.events[id_] += 1
        self.status[id_] = "ACTIVE"

    @rule(id_=connections)
    def heal(self, id_: UUID) -> None:
        """One repair takes an ACTIVE connection."""
        if self.status.get(id_) != "ACTIVE":
            return
        heal_id = uuid4()

        async def write(session: AsyncSession) -> None:
            registry.begin_heal(await registry.lock_connection(session, id_), heal_id)

        self._run(write)
        self.status[id_], self.heals[id_] = "HEALING", heal_id

    @rule(id_=connections, is_owner=st.booleans())
    def end_heal(self, id_: UUID, is_owner: bool) -> None:
        """Only the repair that holds it gives it back."""
        if self.status.get(id_) != "HEALING":
            return
        heal_id = self.heals[id_] if is_owner else uuid4()

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, id_)
            registry.end_heal(row, heal_id, status=ConnectionStatus.ACTIVE)

        try:
            self._run(write)
        except NotActive:
            assert not is_owner
            return
        assert is_owner
        self.status[id_] = "ACTIVE"

    @rule(id_=connections)
    def fail(self, id_: UUID) -> None:
        """A failed onboarding frees its name."""
        if self.status.get(id_) != "PENDING":
            return

        async def write(session: AsyncSession) -> None:
            (await registry.lock_connection(session, id_)).status = ConnectionStatus.FAILED

        self._run(write)
        self.status[id_] = "FAILED"

    @rule(id_=connections)
    def archive(self, id_: UUID) -> None:
        """An archived connection cannot be locked, and its name is free."""
        if self.status.get(id_) != "ACTIVE":
            return

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, id_)
            row.archived_at = await registry.now(session)

        self._run(write)
        self.status[id_] = "archived"
        with pytest.raises(NotActive):
            self._run(lambda session: registry.lock_connection(session, id_))

    @invariant()
    def the_registry_is_as_the_model(self) -> None:
        """Heads, versions without a gap, events in order, statuses."""
        rows = self._sql("""
            SELECT c.id, CASE WHEN archived_at IS NULL THEN status::text ELSE 'archived' END,
                catalog_version, event_seq,
                (SELECT array_agg(version_number ORDER BY version_number)
                    FROM sync_catalog_versions v WHERE v.connection_id = c.id),
                (SELECT array_agg(seq ORDER BY id) FROM events e WHERE e.connection_id = c.id)
            FROM connections c
        """)
        assert {row[0]: row[1] for row in rows} == self.status
        for id_, _, head, seq, versions, seqs in rows:
            assert head == self.heads[id_]
            assert (versions or []) == list(range(1, head + 1))
            assert seq == self.events[id_]
            assert (seqs or []) == list(range(1, seq + 1))


def test_registry_invariants_hold_in_any_order(registry_url: str, postgres_url: str) -> None:
    """40 random lives of up to 30 steps."""
    RegistryMachine.url, RegistryMachine.owner_url = registry_url, postgres_url
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=40 if os.environ.get("AAM_DEEP") else 10,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
