"""Mappers: which catalogs Airbyte refuses for them, when they lapse, and what a heal does then."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog, drift
from shared.domain.catalog import InvalidCatalog
from shared.domain.catalog._mappers import column_after, effective_mappers, may_have_mappers
from shared.domain.drift import Change
from tests.unit.catalogs import MOMENT, TEXT, Json, document, picked, stream
from tests.unit.healing import ORDERS, Path, decided, heal, healed

FIELDS: Json = {"id": TEXT, "updated": MOMENT, "email": TEXT, "total": TEXT}
WITHOUT: Json = {name: of for name, of in FIELDS.items() if name != "email"}
FILTER: Json = {"type": "EQUAL", "fieldName": "email", "comparisonValue": "x"}


def hashing(field: str = "email", **more: Any) -> Json:
    """A hashing mapper with an id."""
    made = {"targetField": field, "method": "SHA-256", "fieldNameSuffix": "_hashed"}
    return {"id": f"hash-{field}", "type": "hashing", "mapperConfiguration": made | more}


def encryption(field: str, key: str = "**********") -> Json:
    """An AES mapper, with the key as Airbyte shows it."""
    made = {"algorithm": "AES", "targetField": field, "fieldNameSuffix": "_aes"}
    made |= {"mode": "CBC", "padding": "NoPadding", "key": key}
    return {"id": f"aes-{field}", "type": "encryption", "mapperConfiguration": made}


def renaming(old: str, new: str) -> Json:
    """A mapper that renames a field."""
    made = {"originalFieldName": old, "newFieldName": new}
    return {"id": f"{old}-{new}", "type": "field-renaming", "mapperConfiguration": made}


def filtering(field: str = "email") -> Json:
    """A mapper that drops a field."""
    return {"type": "field-filtering", "mapperConfiguration": {"targetField": field}}


ROWS: Json = {"id": "rows", "type": "row-filtering", "mapperConfiguration": {"conditions": FILTER}}
NEWER: Json = {"type": "of-the-future", "mapperConfiguration": {"targetField": "email"}}


def mapped(*mappers: Json, **config: Any) -> Json:
    """A stream with all fields and these mappers."""
    return stream(fields=FIELDS, mappers=list(mappers), **config)


def lapse(before: Json, after: Json) -> Change:
    """The only lapse between a head and what the source offers."""
    configured = catalog.parse(document(before))
    found = [
        change
        for change, _ in healing.plan_changes(configured, document(after))
        if change.kind == "mapper_lapsed"
    ]
    (change,) = found
    return change


def problems(before: Json, after: Json, *decisions: Instruction) -> list[tuple[str, str]]:
    """Codes and messages of why the decisions lead to no catalog."""
    with pytest.raises(HealImpossible) as impossible:
        heal([before], [after], decisions)
    return [(problem.code, problem.message) for problem in impossible.value.problems]


# -- what Airbyte refuses


@pytest.mark.parametrize(
    "mappers, config, codes",
    [
        ([hashing(), renaming("email_hashed", "e")], {}, []),
        ([hashing("gone")], {}, ["mapper_without_field"]),
        ([hashing(), hashing()], {}, ["mapper_without_field"]),
        ([hashing()], picked("id", "updated"), ["mapper_without_field"]),
        ([renaming("email", "total")], {}, ["mapper_field_exists"]),
        ([renaming("email", "total")], picked("id", "updated", "email"), []),
        ([renaming("email", "e"), renaming("total", "email")], {}, []),
        ([filtering(), renaming("total", "email")], {}, []),
        ([hashing(fieldNameSuffix="")], {}, []),
        ([{"type": "hashing", "mapperConfiguration": {}}], {}, ["invalid_mapper"]),
        (
            [ROWS, {**ROWS, "mapperConfiguration": {"conditions": FILTER | {"fieldName": "x"}}}],
            {},
            [],
        ),
        ([NEWER, hashing("made_by_it")], {}, []),
        ([encryption("email")], {}, []),
        ([encryption("email", key="00ff")], {}, ["secret_in_catalog"]),
        ([], {"hashedFields": [{"fieldPath": ["gone"]}]}, ["mapper_without_field"]),
        ([hashing()], {"hashedFields": [{"fieldPath": ["gone"]}]}, []),
    ],
)
def test_catalog_is_refused_as_airbyte_refuses_it(
    mappers: list[Json], config: Json, codes: list[str]
) -> None:
    """Each mapper sees the selected fields that the one before left; a key is not stored."""
    posted = catalog.parse(document(mapped(*mappers, **config)))

    found, message = [], ""
    try:
        catalog.validate(posted)
    except InvalidCatalog as error:
        found, message = [problem.code for problem in error.problems], str(error)

    assert found == codes
    assert "00ff" not in message


def test_hashed_fields_count_only_without_mappers() -> None:
    """Airbyte computes them from the mappers when it is read, and ignores them when written."""
    shown = [{"fieldPath": ["email"]}]
    sent, held = mapped(hashing(method="MD5")), mapped(hashing(method="MD5"), hashedFields=shown)
    alone, made = mapped(hashedFields=shown), mapped(hashing())

    prints = [
        catalog.document_fingerprint(document(one)) for one in (sent, held, alone, made, mapped())
    ]

    assert prints[0] == prints[1]
    assert prints[2] == prints[3]
    assert len(set(prints)) == 3


def test_streams_with_mappers_are_found_without_parsing() -> None:
    """Airbyte's empty lists do not count, however they are written."""
    for text in (b'{"mappers":[]}', b'{"mappers" : [ ], "hashedFields":null}', b"{}"):
        assert not may_have_mappers(text)
    for one in (mapped(hashing()), mapped(hashedFields=[{"fieldPath": ["email"]}])):
        assert may_have_mappers(document(mapped(), one))


# -- lapses


def test_lapse_names_the_mappers_and_their_column() -> None:
    """Never their configuration; and through the names that earlier mappers gave."""
    before = mapped(encryption("email"), renaming("email_aes", "secret"), hashing("total"))

    change = lapse(before, stream(fields=WITHOUT))

    assert (change.stream, change.path) == (ORDERS, ("email",))
    assert change.before == {
        "mappers": [
            {"type": "encryption", "id": "aes-email", "column": "secret"},
            {"type": "field-renaming", "id": "email_aes-secret", "column": "secret"},
        ]
    }


@pytest.mark.parametrize(
    "mapper, severity",
    [
        (hashing(), "breaking"),
        (encryption("email"), "breaking"),
        (renaming("email", "e"), "needs_review"),
        (filtering(), "needs_review"),
        (ROWS, "needs_review"),
        (NEWER, "needs_review"),
    ],
)
def test_lapsed_hash_or_encryption_is_breaking(mapper: Json, severity: str) -> None:
    before = mapped(mapper)
    (configured,) = catalog.parse(document(before)).streams

    verdict = drift.severity(lapse(before, stream(fields=WITHOUT)), configured)

    assert (verdict.severity, verdict.entity, verdict.what) == (severity, "mapper", "lapsed")
    assert verdict.affects_sync


def test_field_that_is_offered_but_not_selected_lapses() -> None:
    """Airbyte applies mappers after field selection."""
    before = mapped(hashing(), **picked("id", "updated"))
    assert lapse(before, stream(fields=FIELDS)).path == ("email",)
    configured = catalog.parse(document(mapped(hashing())))
    assert not drift.lapses(configured, catalog.scan(document(stream(fields=FIELDS))))
    assert not drift.lapses(configured, catalog.scan(document(stream("other"))))


# -- heals


@pytest.mark.parametrize("mapper", [hashing(), encryption("email"), renaming("email", "e")])
def test_removal_without_a_choice_is_impossible(mapper: Json) -> None:
    """Airbyte would refuse the whole catalog; the message says what can be chosen."""
    before, after = mapped(mapper), stream(fields=WITHOUT)
    (removal,) = decided([before], [after])
    applied = Instruction(lapse(before, after), "apply")

    ((code, message),) = problems(before, after, removal)
    assert code == "mapper_without_field"
    assert "remove the mapper, let it follow the rename, or keep the field" in message
    found = problems(before, after, removal, applied)
    assert [code for code, _ in found] == ["mapper_choice_required"]


def test_mapper_is_dropped_on_request_and_others_stay_byte_for_byte() -> None:
    """Also from `hashedFields`, from which Airbyte would make it again."""
    others = [encryption("total"), ROWS]
    shown = [{"fieldPath": ["email"]}]
    before = mapped(others[0], hashing(), hashedFields=shown)
    after = stream(fields=WITHOUT)
    drop = Instruction(lapse(before, after), "drop_mapper")

    result = heal([before], [after], [*decided([before], [after]), drop])

    (pair,) = orjson.loads(result.catalog)["streams"]
    assert (pair["config"]["mappers"], pair["config"]["hashedFields"]) == ([others[0]], [])
    assert msgspec.json.encode(others[0]) in result.catalog
    assert [effect.code for effect in result.effects] == ["mapper_dropped"]
    assert "written in plain" in result.effects[0].message
    again = healing.heal(catalog.parse(result.catalog), document(after), [drop])
    assert again.catalog == result.catalog


def test_field_is_kept_with_its_mapper() -> None:
    """The other changes of the stream are applied."""
    before, after = mapped(hashing()), stream(fields=WITHOUT | {"new": TEXT})
    keep = [
        msgspec.structs.replace(one, action="keep") if one.change.path == ("email",) else one
        for one in decided([before], [after])
    ]

    result = heal([before], [after], [*keep, Instruction(lapse(before, after), "keep")])

    (pair,) = orjson.loads(result.catalog)["streams"]
    assert set(pair["stream"]["jsonSchema"]["properties"]) == {*FIELDS, "new"}
    assert pair["config"] == before["config"]


def test_mapper_follows_a_field_that_the_catalog_no_longer_has() -> None:
    """As after a heal that removed the field, before Airbyte refused that."""
    before = mapped(hashing(), ROWS) | {"stream": stream(fields=WITHOUT | {"mail": TEXT})["stream"]}
    after = stream(fields=WITHOUT | {"mail": TEXT})
    follow = Instruction(lapse(before, after), "apply", became=("mail",))

    result = heal([before], [after], [follow])

    (pair,) = orjson.loads(result.catalog)["streams"]
    targets = [one["mapperConfiguration"].get("targetField") for one in pair["config"]["mappers"]]
    assert targets == ["mail", None]
    assert problems(before, after) == problems(before, after, Instruction(follow.change, "keep"))
    returned = stream(fields=FIELDS)
    assert [code for code, _ in problems(before, returned, follow)] == ["decision_outdated"]


def test_row_filter_may_stay_without_its_field() -> None:
    """Airbyte accepts it; the effect reports that it has no field."""
    pair, codes = healed(mapped(ROWS), stream(fields=WITHOUT))
    assert (pair["config"]["mappers"], codes) == ([ROWS], ["mapper_without_field"])


def test_one_stream_s_mapper_makes_every_heal_impossible() -> None:
    """Airbyte refuses the whole catalog for it, and so the stream with the mapper is named."""
    lapsed = mapped(hashing()) | {"stream": stream(fields=WITHOUT)["stream"]}
    other = stream("other")
    decisions = decided([lapsed, other], [lapsed, stream("other", fields=FIELDS)])
    with pytest.raises(HealImpossible) as impossible:
        heal([lapsed, other], [lapsed, stream("other", fields=FIELDS)], decisions)
    assert [one.stream for one in impossible.value.problems] == [ORDERS]


def test_new_field_with_the_name_of_a_hashed_column_is_impossible() -> None:
    before, after = mapped(hashing()), stream(fields=FIELDS | {"email_hashed": TEXT})
    found = problems(before, after, *decided([before], [after]))
    assert [code for code, _ in found] == ["mapper_field_exists"]


def test_rename_of_a_hashed_field_names_both_columns() -> None:
    """The output column moves with the field, unless a later mapper names it."""
    after = stream(fields=WITHOUT | {"mail": TEXT})
    became: dict[Path, Path] = {("email",): ("mail",)}

    def renamed(*mappers: Json) -> tuple[list[Json], str]:
        before = mapped(*mappers)
        decisions = [
            msgspec.structs.replace(one, became=became.get(one.change.path))
            for one in decided([before], [after])
        ]
        result = heal([before], [after], decisions)
        (pair,) = orjson.loads(result.catalog)["streams"]
        effect = next(one for one in result.effects if one.code == "mapper_followed")
        return pair["config"]["mappers"], effect.message

    mappers, message = renamed(hashing(), hashing("total"))
    assert mappers == [
        hashing() | {"mapperConfiguration": hashing("mail")["mapperConfiguration"]},
        hashing("total"),
    ]
    assert "'email_hashed' gets no new values, and 'mail_hashed' begins" in message

    mappers, message = renamed(encryption("email"), renaming("email_aes", "secret"))
    assert mappers[1]["mapperConfiguration"]["originalFieldName"] == "mail_aes"
    assert message.endswith("The column 'secret' is kept.")
    (pair,) = [stream(fields=FIELDS, mappers=mappers)]
    config = catalog.parse(document(pair)).streams[0].config
    assert column_after(effective_mappers(config), "mail") == "secret"


def test_rollback_checks_the_mappers_of_the_older_version() -> None:
    """Version 1 may have been written before Airbyte validated mappers."""
    older = mapped(hashing()) | {"stream": stream(fields=WITHOUT)["stream"]}
    found = healing.incompatibilities(
        catalog.parse(document(older)), document(stream(fields=FIELDS))
    )
    assert [one.code for one in found] == ["mapper_without_field"]


def test_discovery_notes_a_mapper_without_a_field() -> None:
    """The person who edits the catalog decides about the mapper."""
    configured = catalog.parse(document(mapped(hashing())))
    merged = catalog.merge(configured, document(stream(fields=WITHOUT)), every_stream=False)
    assert [note.code for note in merged.notes] == ["mapper_without_field"]
    assert orjson.loads(merged.catalog)["streams"][0]["config"]["mappers"] == [hashing()]


@pytest.mark.parametrize("depth", [40, 900, 100_000])
def test_deep_conditions_end(depth: int) -> None:
    """An answer or an InvalidCatalog, never a RecursionError."""
    inner = b'{"type":"NOT","conditions":[' * depth + msgspec.json.encode(FILTER) + b"]}" * depth
    deep = b'{"type":"row-filtering","mapperConfiguration":{"conditions":' + inner + b"}}"
    text = document(mapped(ROWS)).replace(msgspec.json.encode(ROWS), deep)
    assert len(text) > depth * 20
    with suppress(InvalidCatalog):
        posted = catalog.parse(text)
        catalog.validate(posted)
        drift.lapses(posted, catalog.scan(document(stream(fields=WITHOUT))))
