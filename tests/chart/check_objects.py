"""Pods meet the restricted standard, secrets are files, and objects of operators have a shape."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.chart.rendering import (
    ROOT,
    SERVICES,
    SETS,
    SETTINGS,
    Object,
    changed,
    component,
    containers,
    objects,
    of_kind,
    of_set,
    pods,
    values,
)

MODULES = {one["component"]: one["module"] for one in SERVICES.values()} | {"migrate": "migrate"}
_NOT_OF_AAM = {"AAM_SETTINGS_DIR", "FORWARDED_ALLOW_IPS"}
"""Read by AAM's loader of settings, and by uvicorn."""


def environment(given: list[Object], name: str, container: Object) -> dict[str, str]:
    """Return what a container gets, with its ConfigMap resolved."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(given, "ConfigMap")}
    found = {one["name"]: one["value"] for one in container.get("env", [])}
    for one in container.get("envFrom", []):
        assert component_of(given, one["configMapRef"]["name"]) == name
        found |= maps[one["configMapRef"]["name"]]
    return found


def component_of(given: list[Object], config_map: str) -> str:
    """Return the component of a ConfigMap by its name."""
    (found,) = (
        component(one)
        for one in of_kind(given, "ConfigMap")
        if one["metadata"]["name"] == config_map
    )
    return found


def mounted(pod: Object, container: Object) -> dict[str, set[tuple[str, str]]]:
    """Return the files of Secrets by folder, each as (file, Secret); `*` is the whole Secret."""
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    found: dict[str, set[tuple[str, str]]] = {}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "secret" in volume:
            found[mount["mountPath"]] = {("*", volume["secret"]["secretName"])}
        for source in volume.get("projected", {}).get("sources", []):
            paths = [item["path"] for item in source["secret"].get("items", [{"path": "*"}])]
            found.setdefault(mount["mountPath"], set()).update(
                (path, source["secret"]["name"]) for path in paths
            )
    return found


@pytest.mark.parametrize("name", SETS)
def test_pods_meet_the_restricted_standard(name: str) -> None:
    """Kubernetes' Pod Security Standard `restricted`, with a read-only root file system."""
    for pod in pods(of_set(name)).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser") != 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= {"emptyDir", "secret", "projected"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            writable = [one for one in container["volumeMounts"] if not one.get("readOnly")]
            assert writable == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108


def test_openshift_assigns_every_id() -> None:
    """And elsewhere the image's user can read the files of Secrets, which others cannot."""
    for pod in pods(of_set("openshift")).values():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["spec"]["securityContext"].keys()
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    for pod in pods(of_set("minimal")).values():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))
        assert context["fsGroup"] == int(user[2])
        for volume in pod["spec"]["volumes"]:
            for kind in ("secret", "projected"):
                assert volume.get(kind, {"defaultMode": 0o440})["defaultMode"] == 0o440


@pytest.mark.parametrize("name", SETS)
def test_containers_have_limits_and_probes(name: str) -> None:
    """Memory is limited and the CPU is not; the Job's containers run to their end unprobed."""
    for of, pod in pods(of_set(name)).items():
        for container in containers(pod):
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}
            assert resources["limits"].keys() == {"memory"}
            if of == "migrate":
                assert not any("Probe" in key for key in container)
                continue
            paths = {
                kind: container[f"{kind}Probe"]["httpGet"]
                for kind in ("startup", "liveness", "readiness")
            }
            assert paths["startup"] == paths["liveness"] == {"path": "/health", "port": "http"}
            assert paths["readiness"] == {"path": "/ready", "port": "http"}
            assert container["readinessProbe"]["timeoutSeconds"] > 3  # /ready takes that long
            assert pod["spec"]["terminationGracePeriodSeconds"] >= 5 + 5 + 10
            assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


@pytest.mark.parametrize("name", SETS)
def test_environment_is_what_the_services_read(name: str) -> None:
    """No variable that a service does not know, and none that is a secret."""
    given = of_set(name)
    for of, pod in pods(given).items():
        fields = SETTINGS[MODULES[of]]
        for container in containers(pod):
            names = set(environment(given, of, container)) - _NOT_OF_AAM
            assert names <= set(fields["read"]), of
            assert not names & set(fields["secret"]), of


@pytest.mark.parametrize("name", SETS)
def test_secrets_are_files_of_their_readers_alone(name: str) -> None:
    """A file in AAM_SETTINGS_DIR is a setting of its service, and each has a login of its own."""
    given = of_set(name)
    for of, pod in pods(given).items():
        for container in containers(pod):
            folders = mounted(pod, container)
            files = {path for path, _ in folders.get("/run/aam", set())}
            read = SETTINGS["orchestrator" if container["name"] == "first-key" else MODULES[of]]
            assert {one.upper() for one in files} <= set(read["read"])
            assert of == "console" or "supabase_db_url" in files
            keys = {path for path, _ in folders.get("/run/key", set())}
            assert keys <= {f"{MODULES[of]}.pem"}
            assert ("/run/first-key" in folders) == (container["name"] == "first-key")
            has_credentials = any(path.startswith("/run/credentials/") for path in folders)
            assert of == "auth-broker" or not has_credentials


def test_each_service_has_exactly_its_own_secrets() -> None:
    """As compose gives them; the owner of the tables logs in in one container alone."""
    given = of_set("minimal")
    airbyte = {"airbyte_client_id", "airbyte_client_secret"}
    expected = {
        "orchestrator": {
            *("supabase_db_url", "redis_url", "rotation_digest_key", "state_encryption_keys"),
            *airbyte,
        },
        "auth-broker": {"supabase_db_url"},
        "drift-repair-agent": {
            *("supabase_db_url", "webhook_signing_key", "state_encryption_keys"),
            *airbyte,
        },
        "schema-observer": {"supabase_db_url", *airbyte},
        "rag-engine": {"supabase_db_url"},
        "console": {"console_session_keys"},
        "migrate": {"supabase_db_url"},
        "first-key": {"supabase_db_url"},
    }
    keys: dict[str, str] = {}
    for pod in pods(given).values():
        items = {
            volume["name"]: {
                item["path"]: item["key"]
                for source in volume.get("projected", {}).get("sources", [])
                for item in source["secret"].get("items", [])
            }
            for volume in pod["spec"]["volumes"]
        }
        for container in containers(pod):
            files = {path for path, _ in mounted(pod, container)["/run/aam"]}
            assert files == expected[container["name"]]
            (volume,) = (
                one["name"] for one in container["volumeMounts"] if one["mountPath"] == "/run/aam"
            )
            keys[container["name"]] = items[volume].get("supabase_db_url", "")
    owners = [name for name, key in keys.items() if key == "migration"]
    assert owners == ["migrate"]
    assert keys.pop("first-key") == keys["orchestrator"]
    assert len(set(keys.values())) == len(keys)


def test_every_secret_of_the_settings_can_be_given() -> None:
    """With every optional secret, the services get all that they can read as a secret."""
    given = objects(
        changed(
            values("external-secrets"),
            *(
                (f"secrets/{name}", {"existingSecret": "one"})
                for name in (
                    *("airbyteApiKey", "airbyteUsername", "airbytePassword"),
                    "oidcClientSecret",
                )
            ),
        )
    )
    files = {
        path.upper()
        for pod in pods(given).values()
        for container in containers(pod)
        for path, _ in mounted(pod, container)["/run/aam"]
    }
    secret = {name for fields in SETTINGS.values() for name in fields["secret"]}
    assert secret - files == {"MIGRATION_DB_URL"}  # the migrations get it as SUPABASE_DB_URL


@pytest.mark.parametrize("name", SETS)
def test_config_maps_hold_no_secret(name: str) -> None:
    """Neither a secret setting nor a URL with a password; and the chart makes no Secret."""
    given = of_set(name)
    secret = {field for fields in SETTINGS.values() for field in fields["secret"]}
    for one in of_kind(given, "ConfigMap"):
        assert not secret & one["data"].keys()
        for text in one["data"].values():
            assert not re.search(r"://[^/\s]*@|BEGIN [A-Z ]*PRIVATE KEY|\baam_\w+_[\w-]{43}", text)
    assert of_kind(given, "Secret") == []


@pytest.mark.parametrize("name", SETS)
def test_budgets_never_block_a_drain(name: str) -> None:
    """Only where there is another replica, and a pod that is not ready never counts."""
    given = of_set(name)
    scalers = {component(one): one for one in of_kind(given, "HorizontalPodAutoscaler")}
    scalers |= {component(one): one for one in of_kind(given, "ScaledObject")}
    budgets = {component(one): one for one in of_kind(given, "PodDisruptionBudget")}
    for one in of_kind(given, "Deployment"):
        of = component(one)
        spec = scalers[of]["spec"] if of in scalers else {}
        least = spec.get("minReplicas") or spec.get("minReplicaCount") or one["spec"]["replicas"]
        assert (of in budgets) == (least > 1)
        assert ("replicas" in one["spec"]) == (of not in scalers)
        assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    for one in budgets.values():
        assert one["spec"].keys() == {"maxUnavailable", "unhealthyPodEvictionPolicy", "selector"}
        assert one["spec"]["maxUnavailable"] == 1
        assert one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_hpa_and_keda_name_deployments() -> None:
    for name, kind in (("production", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        given = of_set(name)
        names = {one["metadata"]["name"] for one in of_kind(given, "Deployment")}
        found = of_kind(given, kind)
        assert found
        for one in found:
            assert one["spec"]["scaleTargetRef"] == {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": one["metadata"]["name"],
            }
            assert one["metadata"]["name"] in names


def test_keda_scales_by_the_jobs_of_each_service() -> None:
    """The shape of a ScaledObject; each entrypoint is a value of the label in docs/metrics.md."""
    found = {component(one): one for one in of_kind(of_set("keda"), "ScaledObject")}
    metrics = (ROOT / "docs/metrics.md").read_text()
    entrypoints: list[str] = []

    assert found.keys() == {"orchestrator", "drift-repair-agent", "schema-observer"}
    for one in found.values():
        assert one["apiVersion"] == "keda.sh/v1alpha1"
        assert one["spec"]["minReplicaCount"] >= 2
        assert len(one["spec"]["triggers"]) == 2
        for trigger in one["spec"]["triggers"]:
            assert trigger["type"] == "prometheus"
            assert trigger["metadata"].keys() == {"serverAddress", "query", "threshold"}
            assert all(isinstance(text, str) for text in trigger["metadata"].values())
            query = re.fullmatch(
                r'max\((aam_\w+)\{namespace="data",entrypoint=~"([\w.|]+)"\}\)',
                trigger["metadata"]["query"],
            )
            assert query is not None
            assert f"| `{query[1]}` |" in metrics
            entrypoints += query[2].split("|")
    (row,) = (line for line in metrics.splitlines() if line.startswith("| `aam_jobs_waiting` |"))
    known = row.split("|")[2].replace("`entrypoint`: ", "").split(",")
    assert sorted(set(entrypoints)) == sorted(one.strip() for one in known)


def test_service_monitor_scrapes_every_service() -> None:
    given = of_set("production")
    (monitor,) = of_kind(given, "ServiceMonitor")

    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["data"]}
    assert monitor["spec"]["endpoints"] == [
        {"port": "metrics", "path": "/metrics", "interval": "30s"}
    ]
    for one in of_kind(given, "Service"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= one["metadata"]["labels"].items()
        (port,) = (port for port in one["spec"]["ports"] if port["name"] == "metrics")
        (container,) = pods(given)[component(one)]["spec"]["containers"]
        assert {"name": "metrics", "containerPort": port["port"], "protocol": "TCP"} in container[
            "ports"
        ]
        served = environment(given, component(one), container)
        assert served["METRICS_PORT"] == str(port["port"])
        assert served["METRICS_HOST"] == "0.0.0.0"  # noqa: S104


def test_alerts_and_dashboard_are_those_of_deploy() -> None:
    given = of_set("production")
    (rules,) = of_kind(given, "PrometheusRule")
    (dashboard,) = (one for one in of_kind(given, "ConfigMap") if "aam.json" in one["data"])

    assert rules["apiVersion"] == "monitoring.coreos.com/v1"
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    board = json.loads((ROOT / "deploy/grafana/aam.json").read_text())
    assert json.loads(dashboard["data"]["aam.json"]) == board


def test_public_address_is_the_consoles() -> None:
    """An Ingress with TLS, or an HTTPRoute, for the host of CONSOLE_URL; no other service."""
    (ingress,) = of_kind(of_set("production"), "Ingress")
    (route,) = of_kind(of_set("keda"), "HTTPRoute")

    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert rule["host"] == "aam.example.com"
    assert path["backend"]["service"] == {"name": "aam-console", "port": {"name": "http"}}
    assert ingress["spec"]["tls"] == [{"hosts": ["aam.example.com"], "secretName": "aam-tls"}]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["aam.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "timeouts": {"request": "0s"},
                "backendRefs": [{"name": "aam-console", "port": 8006}],
            }
        ],
    }
    for name in SETS:
        for one in of_kind(of_set(name), "Service"):
            assert one["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_external_secrets_make_what_pods_mount() -> None:
    """Each mounted Secret with the keys that are read of it; those of the Job exist before it."""
    given = of_set("external-secrets")
    made: dict[str, Any] = {}
    for one in of_kind(given, "ExternalSecret"):
        assert one["apiVersion"] == "external-secrets.io/v1"
        spec = one["spec"]
        assert spec["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
        assert spec["target"]["name"] == one["metadata"]["name"]
        is_early = "annotations" in one["metadata"]
        assert spec["target"]["creationPolicy"] == ("Orphan" if is_early else "Owner")
        made[spec["target"]["name"]] = (
            is_early,
            {item["secretKey"] for item in spec.get("data", [])},
        )
        for item in spec.get("data", []):
            assert item["remoteRef"].keys() <= {"key", "property"}
    used: set[str] = set()
    for of, pod in pods(given).items():
        for volume in pod["spec"]["volumes"]:
            sources = [one["secret"] for one in volume.get("projected", {}).get("sources", [])]
            whole = [{"name": volume["secret"]["secretName"]}] if "secret" in volume else []
            for secret in (*sources, *whole):
                is_early, keys = made[secret["name"]]
                assert {item["key"] for item in secret.get("items", [])} <= keys
                assert is_early or of != "migrate"
                used.add(secret["name"])
    assert used == made.keys()
