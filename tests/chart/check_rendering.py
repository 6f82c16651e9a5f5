"""Every set of values renders to objects that Kubernetes accepts, as far as its schemas say."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import (
    CHART,
    NEWEST,
    OLDEST,
    ROOT,
    SERVICES,
    SETS,
    Object,
    changed,
    component,
    containers,
    objects,
    of_kind,
    of_set,
    pods,
    texts,
    values,
)

_CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule", "HTTPRoute", "ExternalSecret"}
"""Kinds whose schemas are not Kubernetes' own."""


def test_there_are_eight_sets_of_values() -> None:
    assert set(SETS) == {
        *("minimal", "production", "openshift", "keda", "external-secrets", "no-console"),
        *("two-airbyte-networks", "upgrade"),
    }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", SETS)
def test_helm_finds_nothing_to_complain_about(name: str, version: str) -> None:
    """`helm lint --strict`; its one remark is that the chart has no icon."""
    found = helm_python.lint(
        CHART, values(name), strict=True, namespace="data", kube_version=f"v{version}.0"
    )

    assert found["errors"] == []
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", SETS)
def test_objects_are_valid(name: str, version: str) -> None:
    """By the strict schemas of the oldest and the newest supported version."""
    given = of_set(name)
    builtin = [one for one in given if one["kind"] not in _CUSTOM]

    assert len(builtin) > 20
    for one in builtin:
        used = kubernetes_validate.validate(one, version, strict=True)
        assert used == version


def test_schemas_refuse_what_is_misspelt() -> None:
    """The strict schemas find one wrong name, also deep in a pod."""
    (one, *_) = of_kind(of_set("minimal"), "Deployment")
    one["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(one, NEWEST, strict=True)


def test_supported_versions_are_named_once() -> None:
    """In Chart.yaml, in the guide, and here."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert chart["kubeVersion"] == f">={OLDEST}.0-0"
    assert kubernetes_validate.latest_version().rpartition(".")[0] == NEWEST
    assert f"{OLDEST} to {NEWEST}" in (ROOT / "docs/guides/kubernetes.md").read_text()
    assert project is not None
    assert chart["appVersion"] == project[1]


@pytest.mark.parametrize("name", SETS)
def test_names_are_unique_and_short(name: str) -> None:
    """Of each kind; 63 characters also with the longest name of a release."""
    long = objects(values(name), release="r" * 53)

    for given in (of_set(name), long):
        names = [(one["kind"], one["metadata"]["name"]) for one in given]
        assert len(set(names)) == len(names)
        # An ExternalSecret's name, as a Secret's, may have 253.
        assert max(len(one) for kind, one in names if kind != "ExternalSecret") <= 63


def test_two_releases_share_no_object_and_no_pod() -> None:
    """In one namespace: neither a name nor a selector."""
    first = objects(values("production"), release="aam")
    second = objects(values("two-airbyte-networks"), release="legacy")

    def names(given: list[Object]) -> set[tuple[str, str]]:
        return {(one["kind"], one["metadata"]["name"]) for one in given}

    assert not names(first) & names(second)
    for one in of_kind(first, "Service"):
        for pod in pods(second).values():
            assert not one["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_commands_and_ports_are_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    given = of_set("minimal")
    services = {component(one): one for one in of_kind(given, "Service")}

    assert services.keys() == {one["component"] for one in SERVICES.values()}
    for name, service in services.items():
        (container,) = pods(given)[name]["spec"]["containers"]
        (port,) = (one for one in container["ports"] if one["name"] == "http")
        assert container["args"] == compose[name]["command"]
        assert f"--port={port['containerPort']}" in compose[name]["command"]
        assert service["spec"]["ports"][0]["port"] == port["containerPort"]
    migrate, first_key = containers(pods(given)["migrate"])
    assert migrate["args"] == compose["migrate"]["command"]
    assert first_key["args"][:3] == compose["keys"]["command"][:3]


@pytest.mark.parametrize("name", SETS)
def test_selectors_never_change(name: str) -> None:
    """Kubernetes refuses another selector of a Deployment, so each upgrade must keep it."""
    for one in of_kind(objects(values(name), is_upgrade=True), "Deployment"):
        assert one["spec"]["selector"]["matchLabels"] == {
            "app.kubernetes.io/name": "aam",
            "app.kubernetes.io/instance": "aam",
            "app.kubernetes.io/component": component(one),
        }
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_upgrade_rolls_what_it_changed() -> None:
    """Other pods keep their template, and the Job is deleted before it is created again."""
    before = objects(values("minimal"))
    after = objects(changed(values("minimal"), ("settings/CONSOLE_NAME", "New")), is_upgrade=True)

    changed_pods = {name for name, pod in pods(before).items() if pods(after)[name] != pod}
    assert changed_pods == {"console"}
    (job,) = of_kind(after, "Job")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "0",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("minimal", [("image/repository", "")], "image.repository is not set"),
        ("minimal", [("airbyte/url", "")], "airbyte.url is not set"),
        ("minimal", [("airbyte/url", "http://a/api/v1")], "set airbyte.plainHttp if"),
        ("minimal", [("console/url", "")], "console.url is not set"),
        ("keda", [("autoscaling/enabled", True)], "exclude each other: both would set the replica"),
        ("keda", [("keda/prometheusUrl", "")], "keda.prometheusUrl is not set"),
        ("keda", [("metrics/enabled", False)], "keda.enabled needs metrics.enabled"),
        ("keda", [("keda/minReplicas", 9)], "keda.minReplicas is greater than keda.maxReplicas"),
        ("keda", [("ingress/enabled", True)], "ingress.enabled and gateway.enabled exclude"),
        ("keda", [("gateway/parentRefs", [])], "gateway.parentRefs is empty"),
        ("no-console", [("ingress/enabled", True)], "they need console.enabled"),
        ("no-console", [("metrics/rules", {"enabled": True})], "metrics.rules need metrics.enable"),
        (
            "external-secrets",
            [("externalSecrets/store/name", "")],
            ".remoteKey needs externalSecrets.store.name",
        ),
        ("external-secrets", [("settings/VAULT_ROLE", "")], "credentialStore vault needs"),
        (
            "external-secrets",
            [("secrets/redisUrl/existingSecret", "x")],
            "secrets.redisUrl has both existingSecret and remoteKey",
        ),
        (
            "minimal",
            [("secrets", {"registry": {"ragEngine": {"existingSecret": ""}}})],
            "secrets.registry.ragEngine.existingSecret is not set",
        ),
        (
            "minimal",
            [("credentials", {"tickets": {}})],
            "credentials.tickets.existingSecret is not set",
        ),
        (
            "minimal",
            [("secrets", {"airbyteClientSecret": {"existingSecret": ""}})],
            "secrets: airbyteClientId and airbyteClientSecret go together",
        ),
    ],
)
def test_contradictions_are_refused(
    name: str, changes: list[tuple[str, Any]], message: str
) -> None:
    """By one sentence that names the value."""
    with pytest.raises(helm_python.HelmError) as refused:
        texts(changed(values(name), *changes))

    assert message in str(refused.value)


def test_notes_lead_on() -> None:
    """They name the console's address, and what has one replica."""
    minimal = texts(values("minimal"))["aam/templates/NOTES.txt"]
    production = texts(values("production"))["aam/templates/NOTES.txt"]

    assert "port-forward -n data service/aam-console 8006" in minimal
    assert "get secret -n data aam-first-key -o jsonpath='{.data.auth}'" in minimal
    assert "are away while their node is drained: authBroker, console, " in minimal
    assert "Open the console: https://aam.example.com" in production
    assert "port-forward" not in production
    assert "drained" not in production
