"""The org's control API, beside Salesforce's: inspect the org, change it, set its behaviour."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Body, Depends
from fastapi.security import HTTPBearer
from pydantic import ValidationError

from local.sample_org import changes
from local.sample_org.running_org import Behaviour, LiveOrg
from shared.errors import Invalid

Members = dict[str, Any]


def routes(live: LiveOrg) -> APIRouter:
    """Build the control API of one org. Every change answers `{"changed": sentence}`."""
    # The guard in front of the application checks the token; this only documents it in OpenAPI.
    router = APIRouter(
        prefix="/org", tags=["org"], dependencies=[Depends(HTTPBearer(auto_error=False))]
    )

    def apply(kind: type[changes.Change], members: Members, **path: str) -> dict[str, str]:
        taken = members.keys() & {*path, "verb"}
        if taken:
            raise Invalid("The path names the object and the field; the body cannot.")
        _require_storable(members)
        try:
            change = kind.model_validate(members | path)
        except ValidationError as error:
            raise _invalid(error) from None
        return {"changed": live.apply(change)}  # type: ignore[arg-type] # every kind is in AnyChange

    @router.get("")
    async def show() -> dict[str, Any]:
        """Return objects with their rows, the behaviour, the calls and the changes so far."""
        org = live.org
        return {
            "born": org.born,
            "behaviour": live.behaviour,
            "calls": dict(live.calls),
            "changes": live.changes,
            "generated_objects": org.custom_objects,
            "objects": {
                sobject.name: {
                    "custom": sobject.custom,
                    "hidden": sobject.hidden,
                    "rows": sobject.count,
                    "fields": len(sobject.fields),
                }
                for sobject in org.stored()
            },
        }

    @router.get("/objects/{name}")
    async def show_object(name: str) -> dict[str, Any]:
        """Show one object: its fields with their types, and how many rows it has."""
        sobject = changes.find_object(live.org, name)
        return {
            "name": sobject.name,
            "hidden": sobject.hidden,
            "rows": sobject.count,
            "fields": {field.name: field.type for field in sobject.fields.values()},
        }

    @router.post("/objects", status_code=201)
    async def add_object(members: Members) -> dict[str, str]:
        """Add a custom object: `{"name", "label"?, "rows"?}`."""
        return apply(changes.AddObject, members)

    @router.post("/objects/{name}/hide")
    async def hide_object(name: str) -> dict[str, str]:
        """Hide an object from the connected user."""
        return apply(changes.HideObject, {}, object=name)

    @router.post("/objects/{name}/show")
    async def unhide_object(name: str) -> dict[str, str]:
        """Show a hidden object to the connected user again."""
        return apply(changes.ShowObject, {}, object=name)

    @router.post("/objects/{name}/touch")
    async def touch(name: str, members: Members = Body(default={})) -> dict[str, str]:  # noqa: B008 -- FastAPI's way to make a body optional
        """Give rows a new SystemModstamp: `{"count"?}`."""
        return apply(changes.Touch, members, object=name)

    @router.post("/objects/{name}/fields", status_code=201)
    async def add_field(name: str, members: Members) -> dict[str, str]:
        """Add a field: `{"name", "type"?, "label"?, "length"?, "values"?, …}`."""
        return apply(changes.AddField, members, object=name)

    @router.delete("/objects/{name}/fields/{field}")
    async def drop_field(name: str, field: str) -> dict[str, str]:
        """Delete a custom field, or hide a standard one."""
        return apply(changes.DropField, {}, object=name, name=field)

    @router.post("/objects/{name}/fields/{field}/rename")
    async def rename_field(name: str, field: str, members: Members) -> dict[str, str]:
        """Rename a custom field: `{"to"}`."""
        return apply(changes.RenameField, members, object=name, name=field)

    @router.post("/objects/{name}/fields/{field}/retype")
    async def retype_field(name: str, field: str, members: Members) -> dict[str, str]:
        """Change the type of a custom field: `{"type"}`."""
        return apply(changes.RetypeField, members, object=name, name=field)

    @router.post("/objects/{name}/fields/{field}/forbid")
    async def forbid_field(name: str, field: str) -> dict[str, str]:
        """Make queries reject a field that is still described."""
        return apply(changes.ForbidField, {}, object=name, name=field)

    @router.post("/objects/{name}/fields/{field}/allow")
    async def allow_field(name: str, field: str) -> dict[str, str]:
        """Let queries read a forbidden field again."""
        return apply(changes.AllowField, {}, object=name, name=field)

    @router.patch("/settings")
    async def behave(members: Members) -> Behaviour:
        """Change how the org behaves; omitted members keep their values."""
        _require_storable(members)
        try:
            behaviour = Behaviour.model_validate(live.behaviour.model_dump() | members)
        except ValidationError as error:
            raise _invalid(error) from None
        live.behave(behaviour)
        return behaviour

    @router.post("/expire-sessions")
    async def expire() -> dict[str, str]:
        """Invalidate every access token, as Salesforce does after some hours."""
        return {"changed": f"{live.close_sessions()} sessions are closed."}

    @router.post("/reset")
    async def reset() -> dict[str, str]:
        """Discard every change, setting and rotated token."""
        live.reset()
        return {"changed": "The org is as it was born, and born today."}

    return router


def _require_storable(members: Members) -> None:
    """Reject values that the journal cannot store, before the org is changed.

    Raises:
        Invalid: an unpaired surrogate, or a number that JSON does not have.
    """
    try:
        orjson.dumps(members)
    except orjson.JSONEncodeError:
        raise Invalid("A text or number in the body cannot be stored as JSON.") from None


def _invalid(error: ValidationError) -> Invalid:
    """Report which members are invalid and why, without the values."""
    problems = [
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return Invalid(f"{'; '.join(problems[:5])}.")
