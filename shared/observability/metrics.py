"""Prometheus metrics: every metric, its labels, and their values.

A label's values are a fixed set, and any other value is reported as `other`, so no external id,
path or name becomes a time series. Nothing is recorded, at almost no cost, until `serve` is called.
docs/metrics.md has the same as a table.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

OTHER: Final = "other"
FIXED_BY_CODE: Final = None
"""Instead of a label's values: it only ever gets constants from the code."""


class Metric(ABC):
    """One metric; `exposed` is its name in Prometheus."""

    suffix: ClassVar[str]
    all: ClassVar[list[Metric]] = []
    """Every declared metric."""

    def __init__(
        self, name: str, about: str, labels: Mapping[str, Collection[str] | None] | None = None
    ) -> None:
        """Declare a metric; `labels` maps each label to its possible values."""
        self.name = name
        self.about = about
        self.labels: dict[str, frozenset[str] | None] = {
            label: None if values is None else frozenset(values)
            for label, values in (labels or {}).items()
        }
        self.all.append(self)

    @property
    def exposed(self) -> str:
        """The name in Prometheus; a histogram adds `_bucket`, `_count` and `_sum`."""
        return self.name + self.suffix

    @abstractmethod
    def made(self, meter: Meter) -> None:
        """Create the instrument."""

    def _bounded(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value if (known := self.labels[name]) is None or value in known else OTHER
            for name, value in labels.items()
        }


class Count(Metric):
    """A counter."""

    suffix = "_total"
    _instrument: Counter | None = None

    def made(self, meter: Meter) -> None:
        """Create the instrument with 0 for every label value, so the first increase is visible."""
        self._instrument = meter.create_counter(self.name, description=self.about)
        values = [known or () for known in self.labels.values()]
        for combination in itertools.product(*values):
            self._instrument.add(0, dict(zip(self.labels, combination, strict=True)))

    def add(self, amount: int = 1, /, **labels: str) -> None:
        """Increase the counter."""
        if self._instrument is not None:
            self._instrument.add(amount, self._bounded(labels))


class Duration(Metric):
    """A histogram of durations in seconds."""

    suffix = "_seconds"
    _instrument: Histogram | None = None

    def __init__(
        self,
        name: str,
        about: str,
        labels: Mapping[str, Collection[str] | None],
        *,
        bounds: Sequence[float],
    ) -> None:
        """Declare a histogram; `bounds` are the upper limits of its buckets, in seconds."""
        super().__init__(name, about, labels)
        self.bounds = bounds

    def made(self, meter: Meter) -> None:
        """Create the instrument."""
        self._instrument = meter.create_histogram(
            self.name,
            unit="s",
            description=self.about,
            explicit_bucket_boundaries_advisory=self.bounds,
        )

    def record(self, seconds: float, **labels: str) -> None:
        """Record one duration."""
        if self._instrument is not None:
            self._instrument.record(seconds, self._bounded(labels))


class Level(Metric):
    """A gauge, set from the registry at intervals."""

    suffix = ""
    _values: Mapping[str, float] | None = None

    def __init__(
        self, name: str, about: str, label: str | None, values: Collection[str], *, unit: str = ""
    ) -> None:
        """Declare a gauge with at most one label."""
        super().__init__(name, about, {} if label is None else {label: values})
        self._label = label
        self._unit = unit

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        return f"{self.name}_seconds" if self._unit == "s" else self.name

    def made(self, meter: Meter) -> None:
        """Create the instrument."""
        meter.create_observable_gauge(
            self.name, [self._observed], unit=self._unit, description=self.about
        )

    def tell(self, values: Mapping[str, float] | None) -> None:
        """Set the gauge by label value, with 0 for values left out; None for unknown."""
        self._values = values

    def _observed(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._values is None:
            return []
        if self._label is None:
            return [Observation(sum(self._values.values()))]
        told = dict.fromkeys(self.labels[self._label] or (), 0.0)
        for name, value in self._values.items():
            key = name if name in told else OTHER
            told[key] = told.get(key, 0.0) + value
        return [Observation(value, {self._label: name}) for name, value in told.items()]


class Backlog:
    """Two gauges of a queue: its length, and the age of its oldest item."""

    def __init__(
        self,
        name: str,
        about: str,
        label: str | None = None,
        values: Collection[str] = (),
        *,
        age: str,
    ) -> None:
        """Declare both gauges."""
        self._count = Level(name, about, label, values)
        self._age = Level(
            age, "For how long the first of them has waited.", label, values, unit="s"
        )

    def tell(self, rows: Iterable[tuple[str, int, float]] | None) -> None:
        """Set both gauges from rows of label value, count and age in seconds; None for unknown."""
        known = None if rows is None else list(rows)
        self._count.tell(None if known is None else {name: count for name, count, _ in known})
        self._age.tell(None if known is None else {name: age for name, _, age in known})


_QUICK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_SLOW: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800)

_KINDS: Final = ("onboard", "sync", "apply", "archive", "pause", "reapply", "rotate")
_ENTRYPOINTS: Final = ("plan", "observe", "resume.orchestrator", "resume.drift_repair_agent")
_UPSTREAM: Final = (
    "ok",
    "cancelled",
    "catalog_too_large",
    "upstream_auth",
    "upstream_conflict",
    "upstream_failed",
    "upstream_login_off",
    "upstream_missing",
    "upstream_not_airbyte",
    "upstream_rejected",
    "upstream_timeout",
    "upstream_tls_failed",
    "upstream_token_endpoint",
    "upstream_unknown",
    "upstream_unreachable",
    "upstream_unsupported",
)
_SEVERITIES: Final = ("harmless", "needs_review", "breaking")

REQUESTS: Final = Duration(
    "aam_http_request_duration",
    "Requests by their route's template; status 499 where the caller left.",
    {
        "method": ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"),
        "route": FIXED_BY_CODE,
        "status": FIXED_BY_CODE,
    },
    bounds=_QUICK,
)
AIRBYTE_UP: Final = Level(
    "aam_airbyte_up",
    "Whether Airbyte says that it is healthy: 1 or 0. Without it the service is degraded.",
    None,
    (),
)
REFUSALS: Final = Count(
    "aam_auth_refusals",
    "Requests that were answered 401, 403 or 429.",
    {"reason": ("missing", "not_valid", "scope", "too_many")},
)
OPERATIONS: Final = Duration(
    "aam_operation_duration",
    "Operations that ended, from the request that began them.",
    {"kind": _KINDS, "outcome": ("done", "failed")},
    bounds=_SLOW,
)
JOBS: Final = Duration(
    "aam_job_duration",
    "Background jobs; what failed is found again by the look over the rows.",
    {"entrypoint": _ENTRYPOINTS, "outcome": ("done", "failed", "bug")},
    bounds=_SLOW,
)
AIRBYTE: Final = Duration(
    "aam_airbyte_request_duration",
    "Calls of Airbyte with their repetitions; the outcome is `ok` or the error's code.",
    {"endpoint": FIXED_BY_CODE, "outcome": _UPSTREAM},
    bounds=_SLOW,
)
BATCH_FAILURES: Final = Count(
    "aam_batch_failures",
    "Items of batches that failed, while the rest of the batch went on.",
    {"cause": ("expected", "bug")},
)
SYNCS: Final = Count(
    "aam_syncs", "Syncs that ended.", {"outcome": ("succeeded", "failed", "cancelled")}
)
HEALS: Final = Count(
    "aam_heals",
    "Catalogs that Airbyte was given: applied, or refused.",
    {"outcome": ("applied", "refused")},
)
DRIFTS: Final = Count(
    "aam_drifts",
    "Drifts that concern a connection, by their gravest change.",
    {"severity": _SEVERITIES},
)
REPAIRS: Final = Count(
    "aam_repairs",
    "What became of repairs; `proposed` waits for a person.",
    {
        "outcome": (
            *("proposed", "applied", "rejected", "expired"),
            *("superseded", "failed", "rolled_back"),
        )
    },
)
PRUNED: Final = Count(
    "aam_rows_pruned",
    "Rows of history that were deleted because they are older than their retention.",
    {
        "table": (
            *("api_keys", "credential_audit", "drifts", "events", "job_history", "operations"),
            *("repairs", "snapshots", "stream_schemas", "webhook_deliveries"),
        )
    },
)
DELIVERIES: Final = Count(
    "aam_webhook_deliveries",
    "Tries to deliver a message; the outcome is `delivered` or why it was not.",
    {
        "outcome": (
            *("delivered", "refused", "gone", "redirected"),
            *("timeout", "unreachable", "tls_failed", "no_answer", "address_refused"),
        )
    },
)

BACKLOGS: Final = {
    "operations": Backlog(
        "aam_operations_open",
        "Operations that have not ended.",
        "kind",
        _KINDS,
        age="aam_operations_oldest_age",
    ),
    "events": Backlog(
        "aam_events_waiting",
        "Events that are not on the stream yet; 10,000 stands for more.",
        age="aam_events_oldest_age",
    ),
    "jobs": Backlog(
        "aam_jobs_waiting",
        "Jobs that are due and not taken.",
        "entrypoint",
        _ENTRYPOINTS,
        age="aam_jobs_oldest_age",
    ),
    "sources": Backlog(
        "aam_sources_overdue",
        "Sources that are due to be looked at, and are not.",
        age="aam_sources_oldest_age",
    ),
    "drifts": Backlog(
        "aam_drifts_open",
        "Connections by the severity of their newest drift, while it is open.",
        "severity",
        _SEVERITIES,
        age="aam_drifts_oldest_age",
    ),
    "repairs": Backlog(
        "aam_repairs_open",
        "Repairs that have not ended.",
        "state",
        ("proposed", "approved", "applying", "verifying", "rolling_back"),
        age="aam_repairs_oldest_age",
    ),
    "messages": Backlog(
        "aam_webhook_messages_waiting",
        "Messages that are neither delivered nor given up.",
        age="aam_webhook_messages_oldest_age",
    ),
}
"""The backlogs that `shared.backlogs` reads, by their names there."""

_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
_served: Final[set[tuple[str, int]]] = set()


def are_kept() -> bool:
    """Whether metrics are served."""
    return bool(_served)


def _for_this_machine(app: WSGIApplication) -> WSGIApplication:
    """Restrict the app to requests that address this machine by a local name.

    This prevents DNS rebinding, by which a web page could read the metrics.
    """

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        if name.lower() not in _THIS_MACHINE or "HTTP_ORIGIN" in environ:
            start_response("421 Misdirected Request", [("Content-Length", "0")])
            return []
        return app(environ, start_response)

    return guarded


def serve(host: str, port: int) -> None:
    """Record metrics, and serve them at http://host:port/metrics from their own thread.

    Raises:
        SystemExit: the port is taken.
    """
    if (host, port) in _served:
        return
    # Imported here, since only a process that serves metrics needs these packages.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from prometheus_client import REGISTRY, start_http_server  # noqa: PLC0415

    try:
        server, _ = start_http_server(port, addr=host)
    except OSError:
        raise SystemExit(f"METRICS_PORT: port {port} of {host} cannot be had") from None
    if host in _THIS_MACHINE and (app := server.get_app()) is not None:
        server.set_app(_for_this_machine(app))
    if not _served:
        reader = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=REGISTRY
        )
        provider = MeterProvider([reader], resource=Resource({}), shutdown_on_exit=False)
        meter = provider.get_meter("aam")
        for metric in Metric.all:
            metric.made(meter)
    _served.add((host, port))
