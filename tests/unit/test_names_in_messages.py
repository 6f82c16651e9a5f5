"""Names come from sources: in a message they are quoted, cut, and on one line."""

from __future__ import annotations

import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Action, Instruction
from shared.domain import catalog, drift
from shared.domain.catalog import Exclusions, InvalidCatalog
from tests.unit.catalogs import MOMENT, TEXT, Json, document, picked, stream

HOSTILE = ["\n\x1b[31mred", "x" * 5000, "\u202egnp", "a\u2028b", "tab\there", "'quoted'"]
PLAIN: Json = {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}


def is_safe(message: str) -> bool:
    """Whether a terminal, a log or a page shows it as one line of bounded length."""
    return message.isprintable() and len(message) < 1000


def messages(before: Json, after: Json, **choice: object) -> list[str]:
    """Every message about a change of a source, its heal, and a rollback."""
    head, offered = catalog.parse(document(before)), document(after)
    planned = healing.plan_changes(head, offered)
    texts = [word for _, verdict in planned for word in (verdict.reason, *verdict.resets)]
    texts += [word for _, verdict in planned for word in verdict.loses]
    texts += [problem.message for problem in healing.incompatibilities(head, offered)]
    exclusions = Exclusions(("*secret*",))
    actions: tuple[Action, ...] = ("apply", "exclude")
    for action in actions:
        decisions = [Instruction(change, action) for change, _ in planned]
        try:
            texts += [e.message for e in healing.heal(head, offered, decisions).effects]
            texts += [
                e.message
                for e in healing.heal(head, offered, decisions, exclusions=exclusions).effects
            ]
        except InvalidCatalog as error:
            texts += [str(error), *(problem.message for problem in error.problems)]
    merged = catalog.merge(head, offered, every_stream=True, exclusions=exclusions)
    return [*texts, *(note.message for note in merged.notes)]


@pytest.mark.parametrize("name", HOSTILE)
def test_every_message_is_one_safe_line(name: str) -> None:
    """Of streams, fields, nested fields, cursors, keys, sync modes and settings."""
    fields = {"id": TEXT, "updated": MOMENT, name: TEXT, "secret": TEXT}
    nested = {"type": "object", "properties": {name: TEXT, "secret" + name: TEXT}}
    pairs = [
        (stream(name), stream("other")),
        (stream(fields=fields), stream(fields={"id": TEXT, "updated": MOMENT})),
        (stream(), stream(fields=fields | {"x": nested})),
        (stream(fields=fields | {"x": {"type": "object"}}), stream(fields=fields | {"x": nested})),
        (stream(fields=fields), stream(fields=fields | {name: {"type": "integer"}})),
        (stream(fields=fields, **picked("id", "updated", name)), stream()),
        (
            stream(fields=fields, offer=PLAIN, cursorField=[name], primaryKey=[[name]]),
            stream(offer=PLAIN),
        ),
        (
            stream(fields=fields),
            stream(fields=fields, offer={"sourceDefinedPrimaryKey": [[name]]}),
        ),
        (
            stream(offer={"supportedSyncModes": [name]}, syncMode=name),
            stream(offer={"supportedSyncModes": ["full_refresh"]}),
        ),
        (stream(), stream(offer={"defaultCursorField": [name, name]})),
    ]
    for before, after in pairs:
        texts = messages(before, after)
        assert texts
        assert [message for message in texts if not is_safe(message)] == []
    for wrong in ({name: 1}, {"syncMode": name}, {"destinationSyncMode": name}):
        with pytest.raises(InvalidCatalog) as refused:
            catalog.validate(catalog.parse(document(stream(name, **wrong))))
        assert all(is_safe(p.message) for p in refused.value.problems)
    with pytest.raises(InvalidCatalog) as refused:
        catalog.choose(document(stream(name)), streams=[name + "?"], destination_sync_modes=set())
    assert is_safe(str(refused.value))


def test_name_with_dots_is_no_path() -> None:
    """A field `a.b` is not a field `b` in `a`, and the field around it has its own name."""
    assert drift.severity(
        drift.Change("field_removed", catalog.StreamId(None, "orders"), ("a.b", "c")),
        catalog.parse(document(stream())).streams[0],
    ).loses == ('"a.b".c',)
    before, after = (
        stream(
            fields={"id": TEXT, "updated": MOMENT, "ad.who": {"type": "object", "properties": p}}
        )
        for p in ({"a": TEXT}, {"a": TEXT, "s.s": TEXT})
    )
    [(change, _)] = healing.plan_changes(catalog.parse(document(before)), document(after))
    head = catalog.parse(document(before))
    result = healing.heal(head, document(after), [Instruction(change, "exclude")])
    assert result.effects[0].message.startswith(
        "'ad.who' of 'orders' is excluded completely, since"
    )
    assert '\'"ad.who"."s.s"\'' in result.effects[0].message


def test_unnamed_cursor_is_not_shown() -> None:
    """The source defined it without a name, and does not any more."""
    own: Json = {"sourceDefinedCursor": True, "defaultCursorField": []}
    none: Json = {"sourceDefinedCursor": False, "defaultCursorField": []}
    before, after = stream(offer=own, cursorField=[]), stream(offer=none, cursorField=[])
    texts = messages(before, after)
    assert [message for message in texts if "''" in message] == []
    assert any("no longer defines a cursor of 'orders'" in message for message in texts)
    head = catalog.parse(document(before))
    [gone] = [
        p for p in healing.incompatibilities(head, document(after)) if p.code == "cursor_gone"
    ]
    assert gone.message == "The source defines no cursor for 'orders', and the catalog sets none."
    decisions = [Instruction(c, "apply") for c, _ in healing.plan_changes(head, document(after))]
    [pair] = orjson.loads(healing.heal(head, document(after), decisions).catalog)["streams"]
    assert pair["config"]["syncMode"] == "full_refresh"
