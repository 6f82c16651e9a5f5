"""The page of a repair: what it shows, and what it sends."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from services.console import text
from services.console.diffs import taken_back
from services.console.forms import Form
from services.console.repair_choices import Decisions
from tests.console import repairs as shapes
from tests.console.browser import SAME_ORIGIN, Browser, Page
from tests.console.double import Double, page, problem
from tests.console.reviewed import APPROVE, PATH, key, orders, previewed, renamed
from tests.console.test_console_security import HOSTILE, injected


async def test_repair_is_explained(signed_in: Browser, double: Double) -> None:
    """What changed, why it matters, the evidence, and what approving it destroys or resets."""
    shapes.answer(double)

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert "5 changes to decide in Salesforce production" in shown.text
    assert "paused in Airbyte until this is decided" in shown.text
    assert "The cursor 'SystemModstamp' of sf.Shipment__c is gone." in shown.text
    assert "0.87 likely, not declared" in shown.text
    assert "94% of the sampled values are the same." in shown.text
    assert "Snowflake does not drop the column." in shown.text
    assert "0.06 unlikely" in shown.text
    assert shown.text.index("sf.Shipment__c . SystemModstamp") < shown.text.index("Credit_Limit__c")
    assert not double.of("POST", f"{PATH}/approve")


async def test_nothing_that_loses_data_is_preselected(signed_in: Browser, double: Double) -> None:
    """A likely rename and an addition are; a removed field, cursor or type starts undecided."""
    shapes.answer(double)
    await signed_in.get(PATH)

    values = {item.id: item.value for item in Decisions.of(shapes.REPAIR).items}

    assert values == {
        "c1": "later",
        "c2": renamed("Sales_Region__c"),
        "c4": "later",
        "c5": "apply",
        "c6": "later",
    }


async def test_preview_is_a_dry_run(signed_in: Browser, double: Double) -> None:
    """The choices are sent as an approval that changes nothing, and the result is shown."""
    shapes.answer(double)

    shown = await previewed(
        signed_in,
        {
            f"choice.{key('c1')}": "gone",
            f"cursor.{key('c1')}": "LastModifiedDate",
            f"column.{key('c2')}": "keep_column",
            f"choice.{key('c4')}": "other",
            f"other.{key('c4')}": "Credit.Limit",
            f"choice.{key('c5')}": "reject",
            "why": "Renamed\r\nin a release.",
        },
    )

    assert shown.status == 200
    ((query, order),) = orders(double)
    assert query == "dry_run=true"
    assert order["changes"] == ["c1", "c2", "c3", "c4"]
    assert order["choices"] == {
        "c1": {"became": None, "cursor": ["LastModifiedDate"]},
        "c2": {"became": ["Sales_Region__c"], "continuity": "keep_column"},
        "c4": {"became": ["Credit.Limit"]},
    }
    assert order["reason"] == "Renamed in a release."
    assert "its last full read took 52 min" in shown.text
    assert "It waits for the end of a sync." in shown.text
    assert "Approve 3 changes, reject 1" in shown.text
    needed = "can be restored afterwards only if the source has sf.Shipment__c.SystemModstamp"
    assert needed in shown.text
    assert "Renamed in a release." in shown.html


async def test_approval_is_of_what_was_previewed(signed_in: Browser, double: Double) -> None:
    """With a reason and the same choices it is sent, once more with the rejection of the rest."""
    shapes.answer(double)
    choices = {f"choice.{key('c4')}": "reject", "why": "Renamed in a release."}
    shown = await previewed(signed_in, choices)
    double.answers[APPROVE] = shapes.REPAIR | {"id": shapes.CHILD_ID, "state": "approved"}
    double.answers[f"POST {PATH}/reject"] = shapes.REPAIR

    answer = await signed_in.post(
        PATH, {"do": "approve", "previewed": shown.fields["previewed"], **choices}
    )

    assert (answer.status, answer.location) == (303, f"/repairs/{shapes.CHILD_ID}")
    query, order = orders(double)[-1]
    assert (query, order["changes"]) == ("wait=0", ["c2", "c3", "c5"])
    assert orders(double, "reject") == [
        ("", {"changes": ["c4"], "reason": "Renamed in a release."})
    ]
    sent = double.of("POST", f"{PATH}/approve")[-1].headers["idempotency-key"]
    assert sent.endswith("-approve")


async def test_other_choices_are_previewed_first(signed_in: Browser, double: Double) -> None:
    """An approval of choices whose result was not shown is only previewed."""
    shapes.answer(double)
    shown = await previewed(signed_in, {"why": "x"})

    answer = await signed_in.post(
        PATH,
        {
            "do": "approve",
            "previewed": shown.fields["previewed"],
            f"choice.{key('c4')}": "gone",
            "why": "x",
        },
    )

    assert answer.status == 422
    assert "The choices have changed since the preview." in answer.text
    assert [query for query, _ in orders(double)] == ["dry_run=true"] * 2


async def test_reason_is_required_where_something_is_lost(
    signed_in: Browser, double: Double
) -> None:
    """The message is next to the field, and the choices stay."""
    shapes.answer(double)
    choices = {f"choice.{key('c4')}": "gone"}
    shown = await previewed(signed_in, choices)

    answer = await signed_in.post(
        PATH, {"do": "approve", "previewed": shown.fields["previewed"], **choices}
    )

    assert answer.status == 422
    assert 'aria-invalid="true"' in answer.html
    assert answer.text.count("Give a reason: something is lost or read again.") == 2
    assert 'id="c4-gone" value="gone" checked' in answer.html
    assert all(query == "dry_run=true" for query, _ in orders(double))


@pytest.mark.parametrize("column, code", [("keep_column", "column_kept"), ("new_column", "lost")])
async def test_rename_that_keeps_its_column_needs_no_reason(
    signed_in: Browser, double: Double, column: str, code: str
) -> None:
    """Nothing of it is lost or read again, unlike of one whose new name is another column."""
    shapes.answer(double)
    effect = {"stream": {"namespace": None, "name": "Account"}, "code": code, "message": "…"}
    result = shapes.DRY_RUN | {"catalog": shapes.DIFF | {"effects": [effect]}}
    double.answers[APPROVE] = shapes.REPAIR | {"state": "approved"}
    double.by_query[APPROVE, "dry_run=true"] = result
    choices = {f"column.{key('c2')}": column}
    shown = await previewed(signed_in, choices)
    assert shown.status == 200, shown.text

    answer = await signed_in.post(
        PATH, {"do": "approve", "previewed": shown.fields["previewed"], **choices}
    )

    assert answer.status == (303 if column == "keep_column" else 422)


async def test_missing_choice_of_the_column(signed_in: Browser, double: Double) -> None:
    """It is asked for once, at its question and in its words, until it is answered."""
    shapes.answer(double)
    message = "Change c2 of Account needs a choice: continuity keep_column or new_column."
    fields = [{"field": "body.choices.c2", "type": "continuity_required", "message": message}]
    double.answers[APPROVE] = lambda _: problem(422, "continuity_required", message, fields=fields)

    shown = await previewed(signed_in, {"why": "Kept."})

    question = "Choose whether the column keeps its old name or a new column starts."
    assert shown.status == 422
    assert shown.text.count(question) == 1
    assert shown.html.index('id="c2-column-error"') < shown.html.index(question)
    assert shown.html.index(question) < shown.html.index('id="c2-keep_column"')
    assert 'href="#c2-column"' in shown.html
    assert message not in shown.text
    assert "continuity_required" not in shown.text
    assert "Kept." in shown.html

    headers = {**SAME_ORIGIN, "HX-Request": "true"}
    part = await signed_in.post(PATH, {"do": "preview"}, headers=headers)
    assert part.text.count(question) == 1
    assert 'id="c2-column-error" class="column-error" hx-swap-oob="true"' in part.html

    double.answers[APPROVE] = shapes.DRY_RUN
    answered = {"do": "preview", f"column.{key('c2')}": "keep_column"}
    part = await signed_in.post(PATH, answered, headers=headers)
    assert question not in part.text
    assert 'id="c2-column-error" class="column-error" hx-swap-oob="true"></div>' in part.html


async def test_rename_is_decided_with_its_column(signed_in: Browser, double: Double) -> None:
    """Unless the policy answers it; the question stands below the new names."""
    shapes.answer(double)

    shown = await signed_in.get(PATH)

    assert "1/4 decided" in shown.text
    assert 'class="change asks-column" id="c2"' in shown.html
    other, column = shown.html.index('id="c2-other"'), shown.html.index('id="c2-keep_column"')
    assert other < column < shown.html.index('id="c2-gone"')

    chosen = await previewed(signed_in, {f"column.{key('c2')}": "new_column"})
    assert "2/4 decided" in chosen.text

    double.answers[f"GET /connections/{shapes.CONNECTION_ID}/policy"] = {
        "two_approvals_from": None,
        "continuity": "new_column",
    }
    assert "2/4 decided" in (await signed_in.get(PATH)).text


async def test_effects_follow_the_column(signed_in: Browser, double: Double) -> None:
    """Before the choice they depend on it; afterwards only those of the chosen column are shown."""
    null = "The column of 'Region__c' keeps its values and is null in new rows."
    is_kept = "'Sales_Region__c' is written into the column 'Region__c', which is kept."
    shapes.answer(double)

    shown = await signed_in.get(PATH)
    assert '<li class="if-open">It depends on your answer below' in shown.html
    assert f'<li class="if-new">{null}' in unescape(shown.html)
    assert f'<li class="if-kept">{is_kept}' in unescape(shown.html)
    both = "Changed: Region__c → became Sales_Region__c"
    assert f"{both} string Renamed; its column is kept" in shown.text
    chosen = await previewed(signed_in, {f"column.{key('c2')}": "new_column"})
    assert f"{both} string Renamed; a new column starts" in chosen.text

    kept = made("keep_column")
    shapes.answer(double, state="applied", version_number=15, changes=[kept, shapes.NEW_NAME])
    shown = await signed_in.get(PATH)
    assert null not in shown.text
    assert f"What this changes {is_kept}" in shown.text
    assert f"{both} string Renamed; its column is kept" in shown.text
    assert "Added: Sales_Region__c" not in shown.text

    changes = [made("new_column"), shapes.NEW_NAME]
    shapes.answer(double, state="applied", version_number=15, changes=changes)
    shown = await signed_in.get(PATH)
    assert f"What this destroys or resets {null}" in shown.text
    assert "which is kept" not in shown.text
    assert "its column is kept" not in shown.text


def made(continuity: str) -> dict[str, Any]:
    """The removal of the renamed field, decided."""
    decision = {
        "action": "apply",
        "became": ["Sales_Region__c"],
        "continuity": continuity,
        "cursor": None,
        "primary_key": None,
        "by": "ada",
        "at": shapes.AT,
    }
    return shapes.RENAMED | {"decision": decision}


def test_what_is_safe_destroys_nothing() -> None:
    """A column that stays with its values is a change, and not a loss."""
    safe = shapes.GONE["destination"]
    message = safe[0]["message"]
    rename = shapes.RENAMED | {"resets": [message], "destination": safe}

    items = Decisions.of(shapes.REPAIR | {"changes": [rename, shapes.NEW_NAME]}).items

    assert [item.destroys for item in items] == [False]
    lost = Decisions.of(shapes.REPAIR | {"changes": [shapes.GONE, shapes.LOST_CURSOR]}).items
    assert [item.destroys for item in lost] == [True, True]


@pytest.mark.parametrize("state", ["approved", "applied", "failed"])
async def test_rollback_is_described_as_such(
    signed_in: Browser, double: Double, state: str
) -> None:
    """What comes back and what is removed, and not the changes that it takes back."""
    shapes.answer(
        double,
        kind="rollback",
        state=state,
        base_version=14,
        target_version=13,
        version_number=15 if state == "applied" else None,
        changes=[shapes.RENAMED, shapes.NEW_NAME, shapes.RETYPED],
        decisions=[
            {
                "verdict": "rolled_back",
                "by": "ada",
                "requested_by": "ada@example.com",
                "at": shapes.AT,
                "reason": "Back.",
                "changes": ["c2", "c3", "c6"],
            }
        ],
        catalog=TAKEN_BACK if state == "applied" else None,
        paused=False,
    )

    shown = await signed_in.get(PATH)

    assert "Rollback of Salesforce production to version 13" in shown.text
    assert "What the rollback changes: version 14 → 15" in shown.text
    assert "Added: Region__c string Comes back" in shown.text
    assert "Removed: Sales_Region__c string No longer synced" in shown.text
    assert "number became integer As it was before" in _tidy(shown)
    assert "Rolled back by ada Back. To version 13, requested by ada@example.com" in shown.text
    for wrong in ("Not decided.", "is gone", "is new", "Loses", "3 changes", "<article"):
        assert wrong not in shown.html
    done = {"applied": "was applied again, as version 15.", "failed": "was not applied again."}
    assert done.get(state, "is applied again, as version 15.") in shown.text

    summary = {"kind": "rollback", "state": state, "target_version": 13}
    double.answers["GET /repairs"] = page(shapes.SUMMARY | summary)
    listed = await signed_in.get("/repairs?state=all")
    assert "The catalog of version 13" in listed.text
    assert "gone" not in listed.text


TAKEN_BACK = {
    "schema_changes": taken_back([shapes.RENAMED, shapes.NEW_NAME, shapes.RETYPED]),
    "config_changes": [],
    "effects": [],
    "problems": [],
}


async def test_halves_of_a_rename_count_as_one(signed_in: Browser, double: Double) -> None:
    """In the decisions as in the button that approves it."""
    decision = {
        "verdict": "approved",
        "by": "ada",
        "requested_by": "ada",
        "at": shapes.AT,
        "reason": None,
        "changes": ["c2", "c3"],
    }
    changes = [made("keep_column"), shapes.NEW_NAME]
    shapes.answer(double, state="applied", decisions=[decision], changes=changes)

    shown = await signed_in.get(PATH)

    assert "Approved by ada 1 change" in shown.text
    assert "requested by" not in shown.text
    shapes.answer(double, changes=changes)
    assert "reject the change" in (await signed_in.get(PATH)).text


def _tidy(shown: Page) -> str:
    return " ".join(shown.text.replace("→", " ").split())


def test_mapper_that_follows_a_rename_starts_undecided() -> None:
    """It has the suggestion of its field, which is decided there, and not a choice of its own."""
    lapsed = shapes.change("c7", "mapper_lapsed", ["Region__c"], choices=["drop", "follow"])
    lapsed |= {"pair": "c3", "suggestion": shapes.RENAMED["suggestion"]}

    made = Decisions.of(
        shapes.REPAIR | {"changes": [shapes.RENAMED, shapes.NEW_NAME, lapsed]}, Form()
    )

    item = next(one for one in made.items if one.id == "c7")
    assert (item.value, item.pair) == ("later", None)
    assert made.approval()["changes"] == ["c2", "c3"]


def test_mappers_of_an_approved_removal_are_not_rejected() -> None:
    """The approval decides them, too, so that the repair no longer has them afterwards."""
    lapsed = shapes.change("c7", "mapper_lapsed", ["Credit_Limit__c"], choices=["drop"])
    repair = shapes.REPAIR | {"changes": [shapes.GONE, lapsed]}
    gone, mapper = Decisions.of(repair).items
    fields = [(f"choice.{mapper.key}", "reject")]

    made = Decisions.of(repair, Form([(f"choice.{gone.key}", "gone"), *fields]))
    assert (made.approval()["changes"], made.rejected) == (["c4"], [])
    assert Decisions.of(repair, Form(fields)).rejection()["changes"] == ["c7"]


def test_only_harmless_changes_are_accepted_together() -> None:
    """Others stay open, even if they lose nothing."""
    harmless = shapes.change("c7", "sync_modes_changed", [], severity="harmless")
    changes = [shapes.RETYPED | {"resets": []}, harmless]

    made = Decisions.of(shapes.REPAIR | {"changes": changes})
    made.choose_harmless()

    assert {one.id: one.value for one in made.items} == {"c6": "later", "c7": "apply"}


async def test_renamed_stream_by_hand(signed_in: Browser, double: Double) -> None:
    """Its first preview can be approved: the start that the page offers is the previewed one."""
    gone = shapes.change("c1", "stream_removed", [], entity="stream")
    shapes.answer(double, changes=[gone])
    item = Decisions.of(shapes.REPAIR | {"changes": [gone]}).items[0]
    choices = {f"choice.{item.key}": "other", f"other.{item.key}": "Accounts", "why": "x"}
    shown = await previewed(signed_in, choices)
    double.answers[APPROVE] = shapes.REPAIR | {"id": shapes.CHILD_ID, "state": "approved"}

    fields = {"previewed": shown.fields["previewed"], "on_renamed_stream": "take_state"}
    answer = await signed_in.post(PATH, {"do": "approve", **fields, **choices})

    assert (answer.status, answer.location) == (303, f"/repairs/{shapes.CHILD_ID}")


async def test_column_of_a_rename_by_hand(signed_in: Browser, double: Double) -> None:
    """Where its values go can be chosen for every removed field, before and after the preview."""
    shapes.answer(double)
    name = f'name="column.{key("c4")}"'
    assert (await signed_in.get(PATH)).html.count(name) == 2

    choices = {f"choice.{key('c4')}": "other", f"other.{key('c4')}": "Limit"}
    shown = await previewed(signed_in, {**choices, f"column.{key('c4')}": "new_column"})

    assert f'{name} id="c4-new_column" value="new_column" checked' in shown.html
    assert orders(double)[-1][1]["choices"]["c4"]["continuity"] == "new_column"


async def test_two_approvals(signed_in: Browser, double: Double) -> None:
    """Who approved first, and that the own approval would be the first of two."""
    first = {
        "verdict": "first_approval",
        "changes": ["c4"],
        "by": "Grace",
        "requested_by": "grace@example.com",
        "at": shapes.AT,
        "reason": "It is gone.",
    }
    shapes.answer(double, decisions=[first])
    double.answers[f"GET /connections/{shapes.CONNECTION_ID}/policy"] = {
        "two_approvals_from": "needs_review"
    }
    double.answers[APPROVE] = shapes.DRY_RUN | {"outcome": "first_approval", "waits_for": None}

    shown = await previewed(signed_in, {"why": "x"})

    assert "1 of 2 approvals. Grace approved 1 change" in shown.text
    assert "Two approvals From “Review”" in shown.text
    assert "This is the first of two approvals." in shown.text


async def test_progress(signed_in: Browser, double: Double) -> None:
    """Steps while it is applied, as a part of the page for htmx; then the page is loaded again."""
    shapes.answer(double, state="applying", operation_id=shapes.OPERATION_ID)
    shown = await signed_in.get(PATH)
    assert f"step {shapes.OPERATION['step']} since" in shown.text
    assert 'hx-trigger="every 3s"' in shown.html
    going = shapes.SUMMARY | {"state": "applying", "operation_id": shapes.OPERATION_ID}
    double.answers["GET /repairs"] = page(going)
    where = f"{PATH}/progress?connection_id={shapes.CONNECTION_ID}"

    part = await signed_in.get(where, headers={"HX-Request": "true"})
    assert "<html" not in part.html
    assert "Sending to Airbyte …" in part.text
    assert "Read back and compared" in part.text

    double.answers["GET /repairs"] = page(going | {"state": "applied"})
    ended = await signed_in.get(where, headers={"HX-Request": "true"})
    assert ended.response.headers["hx-refresh"] == "true"
    assert (await signed_in.get(where)).location == PATH


async def test_proof_after_applying(signed_in: Browser, double: Double) -> None:
    """The version with its fingerprint, and the way back."""
    shapes.answer(double, state="applied", version_number=15, paused=False, ended_at=shapes.AT)

    shown = await signed_in.get(PATH)

    assert "Airbyte has version 15: AAM read it back and compared it" in shown.text
    assert shapes.VERSION["fingerprint"] in shown.text
    assert f'href="/connections/{shapes.CONNECTION_ID}/versions/15..14"' in shown.html


async def test_many_changes_are_paged(signed_in: Browser, double: Double) -> None:
    """Choices on other pages are carried in the form."""
    many = [
        shapes.change(f"c{at}", "field_removed", [f"Field_{at:04}"], before=shapes.NUMBER)
        for at in range(1, 130)
    ]
    many += [shapes.change("c130", "field_removed", ["Id"], stream={"name": "Shipment"})]
    repair = shapes.answer(double, changes=many, catalog=None)
    first = Decisions.of(repair).items[0]
    assert "130 fields gone in Account , Shipment ." in (await signed_in.get(PATH)).text

    await signed_in.get(PATH)
    shown = await signed_in.post(PATH, {"do": "page-4", f"choice.{first.key}": "gone"})

    assert shown.status == 200
    assert shown.html.count('<article class="change') == 10
    assert f'type="hidden" name="choice.{first.key}" value="gone"' in shown.html


async def test_part_for_htmx(signed_in: Browser, double: Double) -> None:
    """A preview by htmx brings the preview and the bar alone."""
    shapes.answer(double)
    await signed_in.get(PATH)

    headers = {**SAME_ORIGIN, "HX-Request": "true"}
    shown = await signed_in.post(PATH, {"do": "preview"}, headers=headers)

    assert shown.status == 200
    assert "<article" not in shown.html
    assert 'hx-swap-oob="true"' in shown.html
    assert "Approve 2 changes" in shown.text


@pytest.mark.deep(after=3)
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_in_repairs(signed_in: Browser, double: Double, name: str) -> None:
    """Shown as text in headings, choices, fields and previews, and sent back exactly."""
    stream = {"namespace": name, "name": name}
    gone = shapes.GONE | {"path": [name], "stream": stream, "reason": name, "loses": [name]}
    added = shapes.ADDED | {"path": [name, name], "stream": stream}
    diff = [{"kind": "field_added", "stream": stream, "path": [name], "after": {"type": name}}]
    catalog = shapes.DIFF | {"schema_changes": diff}
    repair = shapes.answer(
        double, changes=[gone, added], connection_name=name, catalog=catalog, paused=False
    )
    double.answers["GET /repairs"] = page(shapes.SUMMARY | {"connection_name": name})
    group = shapes.GROUP | {"path": [name], "stream": stream, "source_type": name}
    group |= {"change": gone, "pair": None}
    double.answers["GET /repairs/groups"] = page(group)

    for path in (PATH, "/repairs", "/repairs/groups"):
        shown = await signed_in.get(path)
        assert shown.status == 200
        assert text.visible_name(name) in unescape(shown.html)
        # The value of an option is text, whatever it looks like.
        assert not [tag for tag in injected(shown.html) if tag not in ("option", "input")]
    item = next(one for one in Decisions.of(repair).items if one.id == gone["id"])
    if "\x00" not in name:
        shown_name = f"{text.visible_name(name)}.{text.visible_name(name)}"
        await previewed(signed_in, {f"choice.{item.key}": "other", f"other.{item.key}": shown_name})
        assert orders(double)[-1][1]["choices"]["c4"] == {"became": [name, name]}
