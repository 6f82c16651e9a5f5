"""The source types of Airbyte's workspaces and their specifications, remembered for some minutes.

A source type is named by its definition's name or id. Names are not unique in Airbyte, and custom
definitions may have any; the names that AAM knows itself always mean Airbyte's own definitions.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from shared import source_types
from shared.airbyte_client import AirbyteClient, Definition, SourceSpecification
from shared.domain import specification as specifications
from shared.domain.did_you_mean import did_you_mean
from shared.domain.specification import InvalidSpecification, Specification
from shared.errors import Invalid, NotFound, UpstreamMismatch, UpstreamMissing
from shared.source_types import SourceType

CACHED_S = 300.0
"""How long definitions and specifications are used without reading them again."""
_AGAIN_S = 5.0
"""How old the definitions must be to read them again because a source type is not among them."""
_MOST_SPECIFICATIONS = 64
_MOST_WORKSPACES = 16
"""Lists of definitions that are remembered; one is up to a megabyte."""
_MOST_CANDIDATES = 10
Key = TypeVar("Key")
Held = TypeVar("Held")


class SourceDefinitions:
    """The source definitions of each workspace."""

    def __init__(
        self, airbyte: AirbyteClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._airbyte = airbyte
        self._clock = clock
        self._definitions: OrderedDict[UUID, tuple[float, list[Definition]]] = OrderedDict()
        self._specifications: OrderedDict[
            tuple[UUID, UUID], tuple[float, str | None, Specification]
        ] = OrderedDict()

    async def all(self, workspace_id: UUID, *, within_s: float = CACHED_S) -> list[Definition]:
        """All definitions of a workspace, ordered by name and id, as of at most `within_s` ago.

        Raises:
            Upstream: Airbyte's definitions cannot be read.
        """
        now = self._clock()
        held = self._definitions.get(workspace_id)
        if held is None or now - held[0] > within_s:
            found = await self._airbyte.source_definitions(workspace_id)
            held = now, sorted(found, key=lambda one: (one.name.casefold(), one.definition_id))
            _remember(self._definitions, workspace_id, held, most=_MOST_WORKSPACES)
        return held[1]

    async def page(
        self, workspace_id: UUID, search: str | None, *, after: UUID | None, limit: int
    ) -> tuple[list[Definition], UUID | None]:
        """Definitions whose name has `search` in it, and the cursor of the following page.

        Raises:
            Invalid: `invalid_cursor`: there is no such definition any more.
            Unavailable: Airbyte is unavailable.
        """
        wanted = (search or "").casefold()
        found = [one for one in await self.all(workspace_id) if wanted in one.name.casefold()]
        if after is not None:
            places = [place for place, one in enumerate(found) if one.definition_id == after]
            if not places:
                raise Invalid("The page to continue from is not known.", code="invalid_cursor")
            found = found[places[0] + 1 :]
        page = found[:limit]
        return page, page[-1].definition_id if len(found) > limit else None

    async def find(self, source_type: str, workspace_id: UUID) -> SourceType:
        """A source type of a workspace by its definition's name or id.

        Raises:
            Invalid: `unknown_source_type`, or `ambiguous_source_type` with the `candidates`.
            Upstream: Airbyte's definitions cannot be read.
        """
        known = source_types.SOURCE_TYPES.get(source_type)
        if known is not None:
            return known
        listed = await self.all(workspace_id)
        if not _matching(listed, source_type):
            listed = await self.all(workspace_id, within_s=_AGAIN_S)
        matching = _matching(listed, source_type)
        if len(matching) == 1:
            return _source_type(matching[0])
        if matching:
            candidates = [
                {"id": str(one.definition_id), "version": one.docker_image_tag}
                for one in matching[:_MOST_CANDIDATES]
            ]
            raise Invalid(
                f"{len(matching)} source types have this name: use the id of one of them.",
                code="ambiguous_source_type",
                fields=[_field("ambiguous_source_type", "Several source types have this name")],
                candidates=candidates,
            )
        names = {one.name for one in listed}
        detail = (
            f"Unknown source_type{did_you_mean(source_type, names, limit=3)} GET /source-types "
            "lists the known ones."
        )
        raise Invalid.of("source_type", detail, code="unknown_source_type")

    async def shown(
        self, source_type: str, workspace_id: UUID
    ) -> tuple[SourceType, Definition, str | None]:
        """A source type with its definition and its documentation's URL, to be shown.

        Raises:
            NotFound: there is no such source type.
            Invalid: `ambiguous_source_type`.
        """
        try:
            found = await self.find(source_type, workspace_id)
            listed = await self.all(workspace_id)
            (definition,) = [one for one in listed if one.definition_id == found.definition_id]
        except ValueError:
            raise NotFound("Airbyte has no such source type.", code="unknown_source_type") from None
        except Invalid as error:
            if error.code != "unknown_source_type":
                raise
            raise NotFound(error.detail, code="unknown_source_type") from None
        _, documentation, _ = await self._cached(found, workspace_id)
        return found, definition, documentation or definition.documentation_url

    async def specification(self, source_type: SourceType, workspace_id: UUID) -> Specification:
        """The connector's specification.

        Raises:
            Invalid: `unknown_source_type`: the workspace does not have the definition.
            UpstreamMismatch: `specification_unusable`.
            Upstream: Airbyte's specification cannot be read.
        """
        return (await self._cached(source_type, workspace_id))[2]

    async def specification_of_source(self, source_id: UUID) -> Specification:
        """The specification of the version that a source runs with; never remembered.

        Raises:
            UpstreamMissing: Airbyte has no such source.
            UpstreamMismatch: `specification_unusable`.
        """
        return _parsed(await self._airbyte.specification_of_source(source_id), "the source")

    async def _cached(
        self, source_type: SourceType, workspace_id: UUID
    ) -> tuple[float, str | None, Specification]:
        id_, now = source_type.definition_id, self._clock()
        key = workspace_id, id_
        held = self._specifications.get(key)
        if held is None or now - held[0] > CACHED_S:
            try:
                read = await self._airbyte.source_specification(id_, workspace_id)
            except UpstreamMissing:
                raise Invalid.of(
                    "source_type",
                    "Airbyte's workspace does not have this source type.",
                    code="unknown_source_type",
                ) from None
            held = now, read.documentation_url, _parsed(read, source_type.name)
            _remember(self._specifications, key, held, most=_MOST_SPECIFICATIONS)
        self._specifications.move_to_end(key)
        return held


def _remember(cache: OrderedDict[Key, Held], key: Key, held: Held, *, most: int) -> None:
    cache[key] = held
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)


def _parsed(read: SourceSpecification, name: str) -> Specification:
    try:
        return specifications.parse(bytes(read.connection_specification))
    except InvalidSpecification as error:
        raise UpstreamMismatch(
            f"The specification that Airbyte has of {name} cannot be used: {error}",
            code="specification_unusable",
        ) from None


def _matching(definitions: Iterable[Definition], source_type: str) -> list[Definition]:
    try:
        by_id = UUID(source_type)
    except ValueError:
        return [one for one in definitions if one.name == source_type]
    return [one for one in definitions if one.definition_id == by_id]


def _source_type(definition: Definition) -> SourceType:
    known = source_types.BY_DEFINITION.get(definition.definition_id)
    return known or SourceType(definition.name, definition.definition_id)


def _field(code: str, message: str) -> dict[str, str]:
    return {"field": "body.source_type", "type": code, "message": message}
