"""List the columns that are kept for renamed fields, and stop keeping one on request."""

from __future__ import annotations

from uuid import UUID

import msgspec
from msgspec import Raw

from services.drift_repair_agent.continuity.schemas import AdoptName, KeptColumn, KeptColumns
from services.drift_repair_agent.healing import end_renamings, renamings, with_own_name
from services.drift_repair_agent.service import ApplyOrder, DriftRepairAgent
from services.drift_repair_agent.states.schemas import StreamName
from shared import registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import Invalid
from shared.operations import HttpResult, Key


class Adoption:
    """Shows the renamings at the front of streams' mappers, and removes them."""

    def __init__(self, db: Database, agent: DriftRepairAgent) -> None:
        self._db = db
        self._agent = agent

    async def kept(self, connection_id: UUID) -> KeptColumns:
        """The renamed fields whose column is kept, and what happens if that ends.

        Raises:
            NotFound: there is no such connection, or it has no version yet.
        """
        head, number = await self._head(connection_id)
        items = [
            KeptColumn(
                stream=StreamName.of(stream.id),
                field=field,
                column=column,
                if_adopted=[
                    message for _, message in end_renamings(stream.config, [field], stream.id)[1]
                ],
            )
            for stream in head.streams
            if stream.selected
            for field, column in renamings(stream.config).items()
        ]
        return KeptColumns(connection_id=connection_id, version=number, items=items)

    async def adopt(
        self, connection_id: UUID, order: AdoptName, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Apply the catalog without the renaming of a field.

        Raises:
            Invalid: no mapper at the front of the stream's mappers renames the field.
            AamError: as `DriftRepairAgent.apply_new_catalog`.
        """
        head, number = await self._head(connection_id)
        wanted = StreamId(order.stream.namespace, order.stream.name)
        stream = head.by_id().get(wanted)
        if number == order.expected_version and (
            stream is None or not stream.selected or order.field not in renamings(stream.config)
        ):
            message = f"No mapper at the front of {wanted} renames the field {order.field!r}."
            raise Invalid(message, code="no_kept_column")
        streams = tuple(
            with_own_name(one, order.field) if one is stream else one for one in head.streams
        )
        document = msgspec.Raw(catalogs.dump(Catalog(streams)))
        apply = ApplyOrder(connection_id, Raw(document), expected_version=order.expected_version)
        return await self._agent.apply_new_catalog(apply, key=key, wait=wait)

    async def _head(self, connection_id: UUID) -> tuple[Catalog, int]:
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            version = await registry.read_version(session, connection_id, row.catalog_version)
        head = await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
        return head, row.catalog_version
