"""The demo's steps: the life of a connection whose source changes, each step checking its result.

All steps use the HTTP APIs, as a person would; only synced data is read from the warehouse.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.mesh_client import (
    PERSON,
    REPAIR_TIMEOUT_S,
    Json,
    Mesh,
    MeshConnection,
    require,
    until,
)
from local.sample_api.settings import Settings as SampleApi

ORDER = {
    "source_type": "Salesforce",
    "connection_name": "Salesforce demo",
    "credential_id": "salesforce-prod",
    "streams": ["Account", "Contact"],
}
REGIONS = ["North", "South", "East", "West"]
TIMES = ("SystemModstamp", "LastModifiedDate", "CreatedDate")
"""The possible cursor fields of a Salesforce object; without them the connector has none."""

NO_SCHEDULED_OBSERVATIONS = {"OBSERVE_INTERVAL": str(7 * 86400)}
"""Setting that prevents scheduled observations, so that each step triggers its own."""

OBSERVATIONS = 3
CUSTOMERS = 25
"""The rows that each usual sync of the shop brings."""
USUAL_SYNCS = 8
"""With fewer, nothing is known about the usual number of rows."""
EVENTS_TIMEOUT_S = 10.0


@dataclass
class Journey:
    """The steps, in order; each returns a sentence about the result that it has checked."""

    mesh: Mesh = field(init=False)
    one: MeshConnection = field(init=False)
    two: MeshConnection = field(init=False)
    shop: MeshConnection = field(init=False)
    credentials: Path = field(init=False)
    """The folder of the credential store `file`."""
    rows: Counter[str] = field(default_factory=Counter)

    async def onboard(self) -> str:
        """Connect the org to the warehouse."""
        made = await self.mesh.ask(
            "orchestrator", "POST", "/connections/onboard", ORDER, expect=201
        )
        require(made["status"] == "ACTIVE", f"its status is {made['status']}")
        require(made["catalog_version"] == 1, f"its version is {made['catalog_version']}")
        self.one = MeshConnection(self.mesh, made["id"])
        return f"connection {self.one.id} is ACTIVE at catalog version 1"

    async def sync(self) -> str:
        """Sync the data, and count it in the warehouse."""
        job = await self.one.synced()
        org = await self.mesh.ask("sample_org", "GET", "/org")
        for stream in ORDER["streams"]:
            there, offered = await self.mesh.count(stream), org["objects"][stream]["rows"]
            require(there == offered > 0, f"{stream}: {there} rows of {offered} arrived")
            self.rows[stream] = there
        counts = ", ".join(f"{count} {stream}" for stream, count in self.rows.items())
        return f"job {job['airbyte_job_id']} succeeded; the warehouse holds {counts} rows"

    async def nothing_changed(self) -> str:
        """Observe an unchanged source: no drift, no version and no event is recorded."""
        for _ in range(OBSERVATIONS):
            await self.one.observed("unchanged")
        drifts, repairs = await self.one.drifts(), await self.one.repairs()
        require(not drifts and not repairs, f"{len(drifts)} drifts, {len(repairs)} repairs")
        require(await self.one.version() == 1, "there is a new version")
        types = {event["type"] for event in await self.mesh.events(self.one.id)}
        require(types <= BEFORE_ANY_DRIFT, f"the stream aam.events has {sorted(types)}")
        return f"{OBSERVATIONS} observations: no drift, no version, no event"

    async def field_added(self) -> str:
        """The org gains two fields; the connection and the next sync include them automatically."""
        number = {"name": "Score__c", "type": "int", "values": [1, 2, 3]}
        text = {"name": "Region__c", "type": "string", "values": REGIONS}
        for new in (number, text):
            await self.mesh.change("POST", "/Account/fields", new)
        repair = await self.one.healed()
        require(repair["decisions"][0]["by"] == "policy", "the decision is not the policy's")
        await self._expect_diff(repair, "field_added", "Score__c", "Region__c")
        await self.one.synced()
        require(await self.mesh.count("Account") == self.rows["Account"], "rows were duplicated")
        found = await self.mesh.warehouse(
            'SELECT json_object_agg(v, n)::text FROM (SELECT "Region__c" v, count(*) n'
            ' FROM "Account" GROUP BY 1 HAVING "Region__c" IS NOT NULL) found'
        )
        values: dict[str, int] = json.loads(str(found or "{}"))
        require(sorted(values) == sorted(REGIONS), f"its values are {list(values)}")
        counts = ", ".join(f"{count} {value}" for value, count in sorted(values.items()))
        return f"version {repair['version_number']} by the policy; the next sync brought {counts}"

    async def field_widened(self) -> str:
        """An integer field becomes a number: nothing can be lost, so no decision is needed."""
        sentence = await self.mesh.change(
            "POST", "/Account/fields/Score__c/retype", {"type": "double"}
        )
        repair = await self.one.healed()
        (change,) = repair["changes"]
        named = (change["entity"], change["what"], change["severity"])
        require(named == ("type", "widened", "harmless"), f"it was judged as {named}")
        await self._expect_diff(repair, "field_retyped", "Score__c")
        return f"{sentence} Version {repair['version_number']} by the policy"

    async def field_dropped(self) -> str:
        """A field is removed: a person is shown what is lost, and decides."""
        version = await self.one.version()
        await self.mesh.change("DELETE", "/Account/fields/CustomerPriority__c")
        repair = await self.one.proposed()
        (change,) = repair["changes"]
        require(change["what"] == "removed", f"it was judged as {change['what']}")
        require("CustomerPriority__c" in change["loses"], f"it loses {change['loses']}")
        require(await self.one.version() == version, "it was applied before a decision")
        repair = await self.one.decide(repair, "approve", "Nobody uses it.")
        require(repair["state"] == "applied", f"the repair is {repair['state']}")
        (decision,) = repair["decisions"]
        require(decision["by"] == PERSON, f"{decision['by']} decided")
        await self._expect_diff(repair, "field_removed", "CustomerPriority__c")
        return f"proposed ({change['reason']}); {PERSON} approved version {version + 1}"

    async def field_renamed(self) -> str:
        """A field is renamed: one suggestion with its evidence, and its column goes on."""
        old, new = "NumberofLocations__c", "LocationCount__c"
        filled = await self.mesh.count("Account", f'"{old}" IS NOT NULL')
        await self.mesh.change("POST", f"/Account/fields/{old}/rename", {"to": new})
        await self.mesh.change("POST", "/Account/touch", {"count": self.rows["Account"]})
        repair = await self.one.proposed()
        suggested = [one["suggestion"] for one in repair["changes"] if one["suggestion"]]
        require(len(suggested) == 1, f"there are {len(suggested)} suggestions")
        (suggestion,) = suggested
        require(suggestion["became"] == [new], f"the suggestion is {suggestion['became']}")
        require(bool(suggestion["evidence"]), "there is no evidence")
        repair = await self.one.decide(
            repair, "approve", "Renamed in release 12.", continuity="keep_column"
        )
        require(repair["state"] == "applied", f"the repair is {repair['state']}")
        await self.one.synced()
        there = await self.mesh.count("Account", f'"{old}" IS NOT NULL')
        require(there == filled > 0, f"{there} of {filled} values arrived")
        require(not await self.mesh.has_column("Account", new), "there is a second column")
        kinds = ", ".join(dict.fromkeys(one["kind"] for one in suggestion["evidence"]))
        sure = f"{suggestion['confidence']:.0%}"
        return f"{old} became {new}, {sure} sure from {kinds}; {old} goes on, with {there} values"

    async def cursor_lost(self) -> str:
        """Contact loses its cursor: paused, proposed, decided, resumed."""
        states = await self._states()
        for name in TIMES:
            await self.mesh.change("DELETE", f"/Contact/fields/{name}")
        repair = await self.one.proposed()
        lost = [one for one in repair["changes"] if one["what"] == "lost"]
        require(bool(lost), "no change is reported as lost")
        held = await self.one.upstream()
        require(held["status"] == "inactive", f"in Airbyte it is {held['status']}")
        refused = await self.mesh.ask("orchestrator", "POST", f"{self.one.path}/sync", expect=409)
        require(refused["code"] == "not_active", f"a sync is refused as {refused['code']}")
        repair = await self.one.decide(repair, "approve", "Read it whole, it is small.")
        require(repair["state"] == "applied", f"the repair is {repair['state']}")
        held = await self.one.upstream()
        modes = {
            pair["stream"]["name"]: pair["config"]["syncMode"]
            for pair in held["syncCatalog"]["streams"]
        }
        require(held["status"] == "active", f"in Airbyte it is {held['status']}")
        require(modes["Contact"] == "full_refresh", f"Contact is read as {modes['Contact']}")
        state = (await self._states()).get("Account")
        require(state == states["Account"] is not None, "Account's state has changed")
        await self.one.synced()
        for stream, count in self.rows.items():
            there = await self.mesh.count(stream)
            require(there == count, f"{stream} holds {there} rows, not {count}")
        return "paused in Airbyte until decided; resumed with Account's state; Contact read in full"

    async def object_hidden(self) -> str:
        """A permission is lost: the discovery is suspicious until the permission is restored."""
        before = (await self.one.version(), len(await self.one.repairs()))
        await self.mesh.change("POST", "/Account/hide")
        observation = await self.one.observed("suspicious")
        require(
            (await self.one.version(), len(await self.one.repairs())) == before, "it was repaired"
        )
        await self.mesh.change("POST", "/Account/show")
        await self.one.observed("unchanged")
        require(
            (await self.one.version(), len(await self.one.repairs())) == before, "it was repaired"
        )
        return f"{observation['code']}: {observation['detail']} Nothing was changed"

    async def bad_heal(self) -> str:
        """A new object is added, its sync fails, and the earlier version is restored."""
        await self._policy(added_streams="apply", verify="sync")
        version = await self.one.version()
        before = (await self.one.upstream())["syncCatalog"]
        await self.mesh.change("POST", "", {"name": "Invoice__c", "rows": 5})
        await self.mesh.change("POST", "/Invoice__c/fields/Name/forbid")
        seen = (await self.one.observed("changed"))["snapshot_id"]
        repair = await self.one.repair(seen, "rolled_back")
        numbers = (repair["version_number"], repair["restored_version"])
        require(numbers == (version + 1, version + 2), f"the versions are {numbers}")
        after = (await self.one.upstream())["syncCatalog"]
        require(after == before, "Airbyte holds another catalog than before")
        await self.one.synced()
        await self._policy(added_streams=None, verify=None)
        return f"version {numbers[0]} failed its sync; {numbers[1]} is as {version} was, and syncs"

    async def two_of_one_source(self) -> str:
        """A second connection of the source, imported: one discovery, two decisions."""
        held = await self.one.upstream()
        order = {
            name: held[name] for name in ("sourceId", "destinationId", "syncCatalog", "status")
        }
        made = await self.mesh.in_airbyte(
            "connections/create", name="By hand", prefix="copy_", scheduleType="manual", **order
        )
        imported = await self.mesh.ask(
            "orchestrator",
            "POST",
            "/connections/import",
            {"airbyte_connection_id": made["connectionId"]},
        )
        self.two = MeshConnection(self.mesh, imported["items"][0]["connection_id"])
        await self.mesh.change("DELETE", "/Account/fields/SLAExpirationDate__c")
        versions = [await self.one.version(), await self.two.version()]
        before = await self._discoveries()
        first = await self.one.proposed()
        made_now = await self._discoveries() - before
        require(made_now == 1, f"there were {made_now} discoveries")
        drifts = await self.two.drifts()
        require(len(drifts) == 1, f"the second connection has {len(drifts)} drifts")
        second = await self.two.repair(first["snapshot_id"], "proposed")
        await self.one.decide(first, "approve", "It is not needed here.")
        await self.two.decide(second, "reject", "It comes back next week.")
        after = [await self.one.version(), await self.two.version()]
        require(after == [versions[0] + 1, versions[1]], f"the versions are {after}")
        return "one discovery, a repair for each: approved for one, rejected for the other"

    async def another_type(self) -> str:
        """Onboard a type that AAM has no code for, by its specification, and heal it."""
        name, shown = "Sample Shop", "/source-types/Sample%20Shop/specification"
        specified = await self.mesh.ask("orchestrator", "GET", shown)
        require(specified["secret_paths"] == ["$.api_key"], f"it is {specified['secret_paths']}")
        order = {
            "source_type": name,
            "connection_name": "Shop demo",
            "credential_id": "file:shop-demo",
            "configuration": {"base_url": f"{self.mesh.stack.url_of('sample_api')}/api/shop"},
            "streams": ["customers"],
        }
        self._store_key(SampleApi().api_key.get_secret_value())
        made = await self.mesh.ask(
            "orchestrator", "POST", "/connections/onboard", order, expect=201
        )
        self.shop = shop = MeshConnection(self.mesh, made["id"])
        await shop.synced()
        customers = await self.mesh.count("customers")
        require(customers > 0, "no customers arrived")
        change = {"api": "shop", "stream": "customers"}
        for one in (
            {"change": "add", "path": ["region"], "values": REGIONS},
            {"change": "touch", "count": customers},
        ):
            await self.mesh.ask("sample_api", "POST", "/control/changes", change | one)
        repair = await shop.healed()
        await shop.synced()
        regions = await self.mesh.count("customers", "region IS NOT NULL")
        require(regions == customers, f"{regions} of {customers} regions arrived")
        return (
            f"{name}, a low-code manifest: {customers} customers; a new field is in version "
            f"{repair['version_number']} by the policy, with {regions} values"
        )

    async def credential_changed(self) -> str:
        """The shop gets another API key: stored in one file, it reaches Airbyte after a check."""
        key = secrets.token_urlsafe(24)
        await self.mesh.ask("sample_api", "POST", "/control/key", {"key": key})
        self._store_key(key)
        await self._event_of_shop("credential.rotated")
        await self.shop.synced()
        view = await self.shop.view()
        require(view["credential_changed_at"] is None, "the connection waits for a rotation")
        return "the new key was checked and given to Airbyte; the next sync succeeded"

    async def rows_missing(self) -> str:
        """After eight usual syncs, one brings nothing because a permission is lost: an alarm."""
        for _ in range(USUAL_SYNCS):
            await self._change_customers(change="touch", count=CUSTOMERS)
            await self.shop.synced()
        await self._change_customers(change="hide")
        for _ in range(3):  # a sync that comes early is judged with the next
            if (await self.shop.synced())["suspicious_streams"]:
                break
        event = await self._event_of_shop("sync.volume_suspicious")
        require(event["code"] == "no_rows", f"its code is {event['code']}")
        volume = await self.mesh.ask("orchestrator", "GET", f"{self.shop.path}/volume")
        (customers,) = volume["items"]
        require(customers["suspicious_since"] is not None, "the stream is not suspicious")
        return f"the sync succeeded without a row; customers: {customers['summary']}"

    async def _change_customers(self, **change: Any) -> None:
        order = {"api": "shop", "stream": "customers", **change}
        await self.mesh.ask("sample_api", "POST", "/control/changes", order)

    async def _event_of_shop(self, kind: str) -> dict[str, str]:
        async def found() -> dict[str, str] | None:
            events = await self.mesh.events(self.shop.id)
            return next((event for event in events if event["type"] == kind), None)

        return await until(found, f"the event {kind}", within_s=REPAIR_TIMEOUT_S)

    def _store_key(self, key: str) -> None:
        """Store the shop's API key where the auth_broker reads it."""
        folder = self.credentials / "shop-demo"
        folder.mkdir(mode=0o700, exist_ok=True)
        written = folder / ".api_key"
        written.write_text(key)
        written.replace(folder / "api_key")

    async def read_events(self) -> str:
        """Check the events about the connection."""

        async def all_events() -> list[dict[str, str]] | None:
            events = await self.mesh.events(self.one.id)
            return events if events[-1]["type"] == "repair.applied" else None

        events = await until(all_events, "the last event", within_s=EVENTS_TIMEOUT_S)
        numbers = [int(event["seq"]) for event in events]
        require(numbers == sorted(set(numbers)), f"their order is {numbers}")
        counts = Counter(event["type"] for event in events)
        require(counts == EVENTS, f"the stream aam.events has {dict(counts)}")
        return f"{len(events)} events on aam.events, in order: {_listed(counts)}"

    async def _expect_diff(self, repair: Json, kind: str, *names: str) -> None:
        """Check that version `version_number` changed these fields of Account and nothing else."""
        number = repair["version_number"]
        diff = await self.mesh.ask(
            "orchestrator",
            "GET",
            f"{self.one.path}/catalog-versions/{repair['base_version']}/diff/{number}",
        )
        found = sorted((one["kind"], *one["path"]) for one in diff["schema_changes"])
        require(found == sorted((kind, name) for name in names), f"it differs in {found}")

    async def _policy(self, *, added_streams: str | None, verify: str | None) -> None:
        """Set the reaction to new streams, and how a repair is verified; None for the default."""
        order = {"reactions": {"stream": {"added": added_streams}}, "verify": verify, "by": PERSON}
        await self.mesh.ask("drift_repair_agent", "PUT", f"{self.one.path}/policy", order)

    async def _states(self) -> dict[str, Any]:
        """The sync state that Airbyte stores for each stream."""
        airbyte_id = (await self.one.view())["airbyte_connection_id"]
        response = await self.mesh.in_airbyte("state/get", connectionId=airbyte_id)
        return {
            one["streamDescriptor"]["name"]: one["streamState"]
            for one in response.get("streamState", [])
        }

    async def _discoveries(self) -> int:
        """How often the org's list of objects was read: once by each discovery."""
        return int((await self.mesh.ask("sample_org", "GET", "/org"))["calls"].get("sobjects", 0))


BEFORE_ANY_DRIFT = {"connection.onboarded", "sync.triggered", "sync.finished"}
EVENTS = {
    "connection.onboarded": 1,
    "sync.triggered": 6,
    "sync.finished": 6,
    "drift.detected": 6,
    "observation.suspicious": 1,
    "observation.recovered": 1,
    "repair.proposed": 4,
    "connection.paused": 1,
    "connection.resumed": 1,
    "catalog.healing": 8,
    "catalog.applied": 8,
    "repair.applied": 6,
    "repair.rolled_back": 1,
}
"""The exact number of events of each type about the connection that is onboarded first.

A new object concerns no connection: its drift is recorded without an event.
"""


def _listed(counts: Counter[str]) -> str:
    return ", ".join(name if n == 1 else f"{name} ({n})" for name, n in counts.items())
