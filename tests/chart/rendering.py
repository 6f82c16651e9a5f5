"""Renders the chart with Helm, for one set of values at a time."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/aam"
OLDEST, NEWEST = "1.31", "1.37"
"""The supported minor versions of Kubernetes; Chart.yaml and the guide name them, too."""
SETS = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
"""Names of the sets of values in ci/."""
SERVICES: dict[str, Any] = yaml.safe_load((CHART / "files/services.yaml").read_text())
SETTINGS: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("settings.json").read_text()
)

Object = dict[str, Any]


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def values(name: str) -> dict[str, Any]:
    """Return a fresh copy of a set of values."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / f"ci/{name}.yaml").read_text())
    return loaded


def default_values() -> dict[str, Any]:
    """Return the chart's own values."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def changed(of: dict[str, Any], *changes: tuple[str, Any]) -> dict[str, Any]:
    """Return a copy of values with other ones at these paths, whose steps `/` separates."""
    copied = copy.deepcopy(of)
    for path, value in changes:
        *outer, last = path.split("/")
        inner = copied
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return copied


def texts(
    given: dict[str, Any], *, release: str = "aam", is_upgrade: bool = False
) -> dict[str, str]:
    """Return what Helm renders of each template, after the schema has accepted the values.

    Raises:
        HelmError: the values are refused by the schema or by a template.
    """
    chart = _chart()
    chart.validate_schema(given)
    rendered: dict[str, str] = chart.render(
        given, name=release, namespace="data", is_install=not is_upgrade, is_upgrade=is_upgrade
    )
    return rendered


def objects(
    given: dict[str, Any], *, release: str = "aam", is_upgrade: bool = False
) -> list[Object]:
    """Return the objects of a release, hooks included."""
    return [
        one
        for name, text in texts(given, release=release, is_upgrade=is_upgrade).items()
        if name.endswith(".yaml")
        for one in yaml.load_all(text, Loader=_WithoutDuplicates)
        if one is not None
    ]


@cache
def _of_set(name: str) -> str:
    return json.dumps(objects(values(name)))


def of_set(name: str) -> list[Object]:
    """Return the objects of a set of values."""
    loaded: list[Object] = json.loads(_of_set(name))
    return loaded


def of_kind(given: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [one for one in given if one["kind"] in kinds]


def component(one: Object) -> str:
    """Return the service that an object belongs to; empty for one of the whole release."""
    found: str = one["metadata"]["labels"].get("app.kubernetes.io/component", "")
    return found


def pods(given: list[Object]) -> dict[str, Object]:
    """Return the pod templates by component."""
    return {component(one): one["spec"]["template"] for one in of_kind(given, "Deployment", "Job")}


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod template."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


class _WithoutDuplicates(yaml.SafeLoader):
    """Refuses a key that occurs twice in one mapping, as Kubernetes does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping.

        Raises:
            ConstructorError: a key occurs twice.
        """
        names = [self.construct_object(key) for key, _ in node.value]
        if len(set(names)) < len(names):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key occurs twice: {sorted(map(str, names))}", node.start_mark
            )
        return super().construct_mapping(node, deep)
