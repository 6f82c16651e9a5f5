"""A renamed field whose column is kept: the mapper in front, the others, and what ends it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog, drift
from shared.domain.catalog._mappers import column_after, effective_mappers
from tests.unit.catalogs import MOMENT, TEXT, Json, document, picked, stream
from tests.unit.healing import ORDERS, PLAIN, Path, heal, healed
from tests.unit.test_mappers import ROWS, encryption, filtering, hashing

INTEGER: Json = {"type": ["null", "integer"]}
FIELDS: Json = {"id": TEXT, "updated": MOMENT, "email": TEXT, "total": INTEGER}


def renamed(fields: Json, **names: str) -> Json:
    """The fields with some of them under another name, at the end."""
    kept = {name: of for name, of in fields.items() if name not in names}
    return kept | {new: fields[old] for old, new in names.items()}


def front(new: str, old: str) -> Json:
    """The mapper that keeps a column, as AAM sends it, without its id."""
    made = {"originalFieldName": new, "newFieldName": old}
    return {"type": "field-renaming", "mapperConfiguration": made}


def without_id(mapper: Json) -> Json:
    """A mapper without its id."""
    return {name: value for name, value in mapper.items() if name != "id"}


def kept(before: Json, after: Json, names: dict[str, str], **more: Any) -> tuple[Json, list[str]]:
    """The stream after renames that keep their columns, and the codes of the effects."""
    became: dict[Path, Path] = {(old,): (new,) for old, new in names.items()}
    return healed(before, after, became, continuity="keep_column", **more)


def test_renaming_is_the_first_mapper_and_others_stay() -> None:
    """They name the field as before, so that its hash and its filter go on."""
    others = [ROWS, hashing()]
    before = stream(fields=FIELDS, mappers=others)
    after = stream(fields=renamed(FIELDS, email="mail"))

    now, codes = kept(before, after, {"email": "mail"})

    first, *rest = now["config"]["mappers"]
    assert without_id(first) == front("mail", "email")
    assert UUID(first["id"])  # Airbyte would give it another one with each update
    assert rest == others
    assert "mail" in now["stream"]["jsonSchema"]["properties"]
    assert "email" not in now["stream"]["jsonSchema"]["properties"]
    assert codes == ["column_kept"]
    config = catalog.parse(document(now)).streams[0].config
    assert column_after(effective_mappers(config), "mail") == "email_hashed"


def test_hashed_fields_without_mappers_stay_hashed() -> None:
    """Airbyte ignores `hashedFields` beside mappers: the hash would lapse without an error."""
    before = stream(fields=FIELDS, hashedFields=[{"fieldPath": ["email"]}])
    now, _ = kept(before, stream(fields=renamed(FIELDS, total="sum")), {"total": "sum"})

    first, second = now["config"]["mappers"]
    assert without_id(first) == front("sum", "total")
    assert second["type"] == "hashing"
    assert second["mapperConfiguration"]["targetField"] == "email"


def test_field_renamed_again_replaces_its_renaming() -> None:
    """No chain, and the mapper keeps its id."""
    mapper = {"id": "m1"} | front("mail", "email")
    fields = renamed(FIELDS, email="mail")
    before = stream(fields=fields, mappers=[mapper, hashing()])

    now, _ = kept(before, stream(fields=renamed(fields, mail="post")), {"mail": "post"})

    assert now["config"]["mappers"] == [{"id": "m1"} | front("post", "email"), hashing()]


@pytest.mark.parametrize("continuity", ["keep_column", None])
def test_field_that_gets_its_former_name_back_needs_no_renaming(continuity: str | None) -> None:
    fields = renamed(FIELDS, email="mail")
    before = stream(fields=fields, mappers=[front("mail", "email"), hashing()])

    became: dict[Path, Path] = {("mail",): ("email",)}
    now, _ = healed(before, stream(fields=FIELDS), became, continuity=continuity)

    assert now["config"]["mappers"] == [hashing()]


def test_hand_picked_list_has_the_new_name_alone() -> None:
    before = stream(fields=FIELDS, **picked("id", "updated", "email"))
    now, _ = kept(before, stream(fields=renamed(FIELDS, email="mail")), {"email": "mail"})
    assert now["config"]["selectedFields"] == picked("id", "updated", "mail")["selectedFields"]


def test_column_of_a_key_goes_on() -> None:
    """Rows written before are matched with new ones, since the destination sees the same key."""
    before = stream(fields=FIELDS, offer=PLAIN)
    after = stream(fields=renamed(FIELDS, id="key"), offer=PLAIN)
    now, codes = kept(before, after, {"id": "key"})
    assert now["config"]["primaryKey"] == [["key"]]
    assert codes == ["key_kept", "column_kept"]


OBJECT: Json = {"type": "object", "properties": {"a": TEXT}}


@pytest.mark.parametrize(
    "before, after, reason",
    [
        (TEXT, MOMENT, "its type was string and is timestamp_tz"),
        (INTEGER, {"type": "number"}, "its type was integer and is number"),
        (OBJECT, OBJECT, "scalar fields only"),
    ],
)
def test_only_scalars_of_the_same_type_are_kept(before: Json, after: Json, reason: str) -> None:
    old = stream(fields=FIELDS | {"x": before})
    new = stream(fields=FIELDS | {"y": after})
    with pytest.raises(HealImpossible) as impossible:
        kept(old, new, {"x": "y"})
    (problem,) = impossible.value.problems
    assert problem.code == "column_not_keepable"
    assert reason in problem.message


_NAMES = st.sampled_from(["a", "b", "c", "d"])
_OTHERS = st.builds(hashing, _NAMES) | st.builds(encryption, _NAMES) | st.builds(filtering, _NAMES)


@given(
    st.lists(_OTHERS | st.just(ROWS), max_size=3, unique_by=str),
    st.lists(_NAMES, min_size=1, max_size=3),
    st.booleans(),
)
def test_front_of_the_list_through_every_history(
    others: list[Json], steps: list[str], is_picked: bool
) -> None:
    """However often fields are renamed: at the front, others unchanged, old names not selected."""
    fields: Json = {"id": TEXT, "updated": MOMENT, "email": TEXT} | dict.fromkeys("abcd", TEXT)
    config = picked(*fields) if is_picked else {}
    now = stream(fields=fields, mappers=others, **config)
    try:
        catalog.validate(catalog.parse(document(now)))
    except catalog.InvalidCatalog:
        return
    names = {name: name for name in "abcd"}
    for number, column in enumerate(steps):
        old, new = names[column], f"{column}{number}"
        fields = renamed(fields, **{old: new})
        names[column] = new
        now, _ = kept(now, stream(fields=fields), {old: new})

        mapped = {name: field for name, field in names.items() if name != field}
        ours, rest = (
            now["config"]["mappers"][: len(mapped)],
            now["config"]["mappers"][len(mapped) :],
        )
        expected = [front(new, old) for old, new in mapped.items()]
        assert sorted(str(without_id(one)) for one in ours) == sorted(map(str, expected))
        assert rest == others
        parsed = catalog.parse(document(now)).streams[0]
        selected = parsed.config.selected_names() or frozenset(parsed.stream.fields() or ())
        assert not selected & mapped.keys()
        configured = effective_mappers(parsed.config)
        plain = catalog.parse(document(stream(mappers=others))).streams[0]
        unmapped = effective_mappers(plain.config)
        for name, field in mapped.items():
            assert column_after(configured, field) == column_after(unmapped, name)


# -- the field comes back


def conflict(before: Json, after: Json) -> list[drift.Change]:
    """The conflicts between a head and what the source offers."""
    planned = healing.plan_changes(catalog.parse(document(before)), document(after))
    return [change for change, _ in planned if change.kind == drift.MAPPING_CONFLICT]


BACK: Json = renamed(FIELDS, email="mail") | {"email": TEXT}


def mapped(*others: Json, **config: Any) -> Json:
    """A stream whose `mail` is written into the column `email`."""
    mappers = [front("mail", "email"), *others]
    return stream(fields=renamed(FIELDS, email="mail"), mappers=mappers, **config)


def test_field_that_comes_back_is_a_conflict() -> None:
    (found,) = conflict(mapped(), stream(fields=BACK))
    assert (found.path, found.before) == (("email",), {"field": "mail"})
    assert conflict(mapped(), stream(fields=FIELDS)) == [], "the rename was undone"
    assert conflict(mapped(**picked("id", "updated", "mail")), stream(fields=BACK)) == []


def test_field_that_came_back_is_left_out_while_the_mapping_stands() -> None:
    """The fields are selected individually from then on, and there is no conflict any more."""
    (found,) = conflict(mapped(), stream(fields=BACK))
    before = [mapped()]
    result = heal(before, [stream(fields=BACK)], [Instruction(found, "exclude")])
    now = orjson.loads(result.catalog)["streams"][0]

    assert now["config"]["mappers"] == [front("mail", "email")]
    chosen = [one["fieldPath"] for one in now["config"]["selectedFields"]]
    assert sorted(chosen) == [["id"], ["mail"], ["total"], ["updated"]]
    assert conflict(now, stream(fields=BACK)) == []
    assert heal(before, [stream(fields=BACK)], [Instruction(found, "keep")]).catalog == document(
        *before
    )


@pytest.mark.parametrize("other", [None, hashing(), encryption("email")])
def test_ended_mapping_selects_both_unless_one_would_be_in_plain(other: Json | None) -> None:
    """A hash follows the field whose values it hashed; the field that came back is left out."""
    others = [] if other is None else [other]
    (found,) = conflict(mapped(*others), stream(fields=BACK))
    result = heal([mapped(*others)], [stream(fields=BACK)], [Instruction(found, "apply")])
    now = catalog.parse(result.catalog).streams[0]

    mappers = effective_mappers(now.config)
    assert "name_adopted" in {effect.code for effect in result.effects}
    selected = now.config.selected_names() or frozenset(now.stream.fields() or ())
    assert "mail" in selected
    assert ("email" in selected) is (other is None)
    assert [mapper.config["targetField"] for mapper in mappers] == ["mail"] * len(others)


def test_undecided_conflict_is_never_taken_in() -> None:
    """Not even by a decision to apply a new field."""
    change = msgspec.structs.replace(
        conflict(mapped(), stream(fields=BACK))[0], kind="field_added", before=None
    )
    with pytest.raises(HealImpossible) as impossible:
        heal([mapped()], [stream(fields=BACK)], [Instruction(change, "apply")])
    assert {problem.code for problem in impossible.value.problems} == {"mapper_field_exists"}
    assert change.stream == ORDERS
