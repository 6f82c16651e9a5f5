"""Who may call whom, by the NetworkPolicies: no packet is sent here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import (
    SERVICES,
    SETS,
    Object,
    changed,
    component,
    objects,
    of_kind,
    of_set,
    pods,
    values,
)

_COMPONENT = "app.kubernetes.io/component"
_CALLS = {
    ("console", "orchestrator"),
    ("console", "drift-repair-agent"),
    ("console", "schema-observer"),
    ("console", "rag-engine"),
    ("orchestrator", "auth-broker"),
    ("drift-repair-agent", "orchestrator"),
    ("drift-repair-agent", "schema-observer"),
    ("drift-repair-agent", "rag-engine"),
}


def policies(given: list[Object]) -> dict[str, dict[str, Any]]:
    """Return the policies by component; that of the whole release has no name."""
    return {component(one): one["spec"] for one in of_kind(given, "NetworkPolicy")}


def ports(rule: dict[str, Any]) -> list[int]:
    """Return the ports of a rule over TCP."""
    return [one["port"] for one in rule["ports"] if one["protocol"] == "TCP"]


def services_in(rule: dict[str, Any], side: str) -> set[str]:
    """Return the services of this release that a rule names."""
    return {
        peer["podSelector"]["matchLabels"][_COMPONENT]
        for peer in rule.get(side, [])
        if _COMPONENT in peer.get("podSelector", {}).get("matchLabels", {})
    }


def outside(spec: dict[str, Any]) -> list[tuple[list[int], list[Object]]]:
    """Return the rules of a policy that lead out of the release, without DNS."""
    return [
        (ports(rule), rule.get("to", []))
        for rule in spec.get("egress", [])
        if not services_in(rule, "to") and 53 not in ports(rule) and 5353 not in ports(rule)
    ]


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_allowed_by_default(name: str) -> None:
    """One policy denies everything to every pod, and each pod has one of its own."""
    given = of_set(name)
    found = policies(given)
    everything = found.pop("")

    assert everything.keys() == {"podSelector", "policyTypes"}
    assert found.keys() == pods(given).keys()
    for of, pod in pods(given).items():
        labels = pod["metadata"]["labels"].items()
        assert everything["podSelector"]["matchLabels"].items() <= labels
        assert found[of]["podSelector"]["matchLabels"].items() <= labels
        assert found[of]["podSelector"]["matchLabels"][_COMPONENT] == of
    assert all(one["policyTypes"] == ["Ingress", "Egress"] for one in (everything, *found.values()))


@pytest.mark.parametrize("name", SETS)
def test_services_call_whom_they_call_in_compose(name: str) -> None:
    """Each call is allowed on both sides, on the called service's port alone."""
    found = policies(of_set(name))
    found.pop("")
    port = {one["component"]: one["port"] for one in SERVICES.values()}
    out = {
        (of, called)
        for of, spec in found.items()
        for rule in spec.get("egress", [])
        for called in services_in(rule, "to")
        if ports(rule) == [port[called]]
    }
    into = {
        (caller, of)
        for of, spec in found.items()
        for rule in spec.get("ingress", [])
        for caller in services_in(rule, "from")
        if ports(rule) == [port[of]]
    }
    expected = {call for call in _CALLS if set(call) <= found.keys()}
    assert out == into == expected


def test_only_the_orchestrator_reaches_the_auth_broker() -> None:
    """Whatever else is allowed; Prometheus reaches another port."""
    for name in SETS:
        (first, *others) = policies(of_set(name))["auth-broker"]["ingress"]
        assert services_in(first, "from") == {"orchestrator"}
        assert len(first["from"]) == 1
        assert all(ports(rule) == [9464] for rule in others)


def test_addresses_outside_by_service() -> None:
    """Postgres for all but the console, and the rest for those that use it."""
    found = policies(of_set("external-secrets"))
    registry, redis, airbyte = [5432], [6379], [443, 8001]

    assert {of: [allowed for allowed, _ in outside(spec)] for of, spec in found.items() if of} == {
        "orchestrator": [registry, redis, airbyte],
        "auth-broker": [registry, [443, 8200]],
        "drift-repair-agent": [registry, airbyte, [443]],
        "schema-observer": [registry, airbyte],
        "rag-engine": [registry],
        "console": [],
        "migrate": [registry],
    }


def test_webhooks_reach_no_private_network() -> None:
    """Nor cloud metadata; every other address on port 443."""
    rules = outside(policies(of_set("minimal"))["drift-repair-agent"])
    ((_, (peer,)),) = (rule for rule in rules if rule[0] == [443])

    assert peer["ipBlock"]["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(
        peer["ipBlock"]["except"]
    )


def test_issuer_and_collector_are_reached_where_they_are_set() -> None:
    """Tokens of people are verified by the services, and the console signs people in."""
    before, after = policies(of_set("keda")), policies(of_set("production"))
    gained = {of: len(outside(after[of])) - len(outside(before[of])) for of in SERVICES_OF_PEOPLE}

    assert gained == dict.fromkeys(SERVICES_OF_PEOPLE, 2)
    assert [allowed for allowed, _ in outside(after["console"])] == [[443], [4318]]
    no_login = policies(objects(changed(values("production"), ("settings/OIDC_CLIENT_ID", ""))))
    assert [allowed for allowed, _ in outside(no_login["console"])] == [[4318]]
    assert [allowed for allowed, _ in outside(after["auth-broker"])] == [[5432], [4318]]


SERVICES_OF_PEOPLE = ("orchestrator", "drift-repair-agent", "schema-observer", "rag-engine")


def test_airbyte_may_be_in_two_networks() -> None:
    """Its API in one and the issuer of its tokens in the other, with each host allowed by http."""
    given = of_set("two-airbyte-networks")
    found = policies(given)
    networks = [{"ipBlock": {"cidr": "192.168.40.0/24"}}, {"ipBlock": {"cidr": "203.0.113.16/28"}}]

    for of in ("orchestrator", "drift-repair-agent", "schema-observer"):
        assert ([443, 8000], networks) in outside(found[of])
    (orchestrator,) = (
        one["data"] for one in of_kind(given, "ConfigMap") if component(one) == "orchestrator"
    )
    assert orchestrator["PLAIN_HTTP_HOSTS"].split(",") == [
        *("aam-legacy-auth-broker", "airbyte.legacy.example.internal", "proxy.example.internal")
    ]


def test_who_comes_in_from_outside() -> None:
    """To the console what is in front of it, and to the services those clients that are named."""
    closed = policies(of_set("minimal"))
    opened = policies(of_set("production"))
    programs = policies(of_set("no-console"))

    assert [ports(rule) for rule in closed["console"]["ingress"]] == [[9464]]
    assert [ports(rule) for rule in opened["console"]["ingress"]] == [[8006], [9464]]
    for of, port in zip(SERVICES_OF_PEOPLE, (8001, 8003, 8004, 8005), strict=True):
        (rule,) = (one for one in programs[of]["ingress"] if not services_in(one, "from"))
        assert ports(rule) == [port]
        assert "namespaceSelector" in rule["from"][0]


def test_policies_can_be_left_to_others() -> None:
    given = objects(changed(values("minimal"), ("networkPolicy/enabled", False)))

    assert of_kind(given, "NetworkPolicy") == []
