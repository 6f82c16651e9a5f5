"""The pages of one connection: its head, and a tab for each kind of fact about it."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages.connection import (
    actions,
    archive,
    catalog,
    catalog_edit,
    policy,
    schema,
    syncs,
    timeline,
    versions,
)

router = APIRouter()
for page in (timeline, catalog, catalog_edit, versions, schema, syncs, policy, actions, archive):
    router.include_router(page.router)
