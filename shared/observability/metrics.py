"""Prometheus metrics: every metric, its labels, and their values.

A label's values are a fixed set, and any other value is reported as `other`, so no external id,
path or name becomes a time series. docs/metrics.md has the same as a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import prometheus_client
from prometheus_client import REGISTRY, disable_created_metrics, start_http_server
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

OTHER: Final = "other"
FIXED_BY_CODE: Final = None
"""Instead of a label's values: it only ever gets constants from the code."""

disable_created_metrics()  # type: ignore[no-untyped-call]


class _Bounded(MetricWrapperBase):
    """A metric that is declared with the values of its labels; others are reported as `other`."""

    values: Mapping[str, Collection[str] | None]

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Mapping[str, Collection[str] | None] | tuple[str, ...],
        **options: Any,
    ) -> None:
        super().__init__(name, documentation, labelnames, **options)
        if isinstance(labelnames, Mapping):  # the library makes children with the names alone
            self.values = labelnames

    def labels(self, *_: object, **labels: object) -> Self:
        """The child for these values; labels are passed by name."""
        return super().labels(
            **{
                name: value if (known := self.values[name]) is None or value in known else OTHER
                for name, value in labels.items()
            }
        )


class Histogram(_Bounded, prometheus_client.Histogram):
    """A histogram with bounded label values."""


class Counter(_Bounded, prometheus_client.Counter):
    """A counter with bounded label values, which begin at 0, so the first increase is visible."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Mapping[str, Collection[str]] | tuple[str, ...],
        **options: Any,
    ) -> None:
        """Declare a counter and create the child of each combination of values."""
        super().__init__(name, documentation, labelnames, **options)
        if isinstance(labelnames, Mapping):
            for combination in itertools.product(*labelnames.values()):
                self.labels(**dict(zip(labelnames, combination, strict=True)))


class Gauge(Collector):
    """A gauge with at most one label, set at intervals, and absent while its values are unknown.

    The library's gauge is never absent.
    """

    _numbers: Mapping[str, float] | None = None

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str | None = None,
        values: Collection[str] = (),
        *,
        unit: str = "",
    ) -> None:
        """Declare the gauge."""
        self.values = {} if label is None else {label: values}
        self._declared = (name, documentation, None, tuple(self.values), unit)
        REGISTRY.register(self)

    def set(self, numbers: Mapping[str, float] | None) -> None:
        """Set the gauge by label value, with 0 for values left out; None for unknown."""
        self._numbers = numbers

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The gauge without samples."""
        return [GaugeMetricFamily(*self._declared)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge, if its values are known."""
        if self._numbers is None:
            return
        family = GaugeMetricFamily(*self._declared)
        for values in self.values.values():
            totals = dict.fromkeys(values, 0.0)
            for value, number in self._numbers.items():
                key = value if value in totals else OTHER
                totals[key] = totals.get(key, 0.0) + number
            for value, number in totals.items():
                family.add_metric([value], number)
        if not self.values:
            family.add_metric([], sum(self._numbers.values()))
        yield family


class Backlog:
    """Two gauges of a queue: its length, and the age of its oldest item."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str | None = None,
        values: Collection[str] = (),
        *,
        age: str,
    ) -> None:
        """Declare both gauges."""
        oldest = "Age of the oldest of them."
        self.count = Gauge(name, documentation, label, values)
        self.age = Gauge(age, oldest, label, values, unit="seconds")

    def set(self, rows: Collection[tuple[str, int, float]] | None) -> None:
        """Set both gauges from rows of label value, count and age in seconds; None for unknown."""
        self.count.set(None if rows is None else {value: count for value, count, _ in rows})
        self.age.set(None if rows is None else {value: age for value, _, age in rows})


_QUICK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_SLOW: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800)

_KINDS: Final = (
    *("onboard", "edit", "sync", "refresh", "cancel"),
    *("apply", "archive", "pause", "reapply", "rotate", "upgrade"),
)
_ENTRYPOINTS: Final = (
    *("plan", "observe", "observe.source", "failed_sync", "failed_discovery"),
    *("resume.orchestrator", "resume.drift_repair_agent"),
)
_UPSTREAM: Final = (
    "ok",
    "cancelled",
    "catalog_too_large",
    "mapper_refused",
    "upstream_auth",
    "upstream_conflict",
    "upstream_failed",
    "upstream_login_off",
    "upstream_missing",
    "upstream_not_airbyte",
    "upstream_rate_limited",
    "upstream_rejected",
    "upstream_timeout",
    "upstream_tls_failed",
    "upstream_token_endpoint",
    "upstream_unknown",
    "upstream_unreachable",
    "upstream_unsupported",
)
_SEVERITIES: Final = ("harmless", "needs_review", "breaking")

REQUESTS: Final = Histogram(
    "aam_http_request_duration",
    "Requests by route template; status 499 if the caller disconnected.",
    {
        "method": ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"),
        "route": FIXED_BY_CODE,
        "status": FIXED_BY_CODE,
    },
    unit="seconds",
    buckets=_QUICK,
)
AIRBYTE_UP: Final = Gauge(
    "aam_airbyte_up",
    "1 if Airbyte reports that it is healthy, else 0; the service is then degraded.",
)
REFUSALS: Final = Counter(
    "aam_auth_refusals",
    "Requests that were answered 401, 403 or 429.",
    {"reason": ("missing", "not_valid", "scope", "too_many")},
)
OPERATIONS: Final = Histogram(
    "aam_operation_duration",
    "Duration of operations that ended, from the request that started them.",
    {"kind": _KINDS, "outcome": ("done", "failed")},
    unit="seconds",
    buckets=_SLOW,
)
JOBS: Final = Histogram(
    "aam_job_duration",
    "Duration of background jobs; a periodic task repeats the work of a failed one.",
    {"entrypoint": _ENTRYPOINTS, "outcome": ("done", "failed", "bug")},
    unit="seconds",
    buckets=_SLOW,
)
AIRBYTE: Final = Histogram(
    "aam_airbyte_request_duration",
    "Duration of calls to Airbyte, including retries; `outcome` is `ok` or the error's code.",
    {"endpoint": FIXED_BY_CODE, "outcome": _UPSTREAM},
    unit="seconds",
    buckets=_SLOW,
)
BATCH_FAILURES: Final = Counter(
    "aam_batch_failures",
    "Items that failed in a batch; the other items of the batch were processed.",
    {"cause": ("expected", "bug")},
)
SYNCS: Final = Counter(
    "aam_syncs", "Syncs that ended.", {"outcome": ("succeeded", "failed", "cancelled")}
)
HEALS: Final = Counter(
    "aam_heals",
    "Catalogs that were sent to Airbyte, by whether they were applied or refused.",
    {"outcome": ("applied", "refused")},
)
DRIFTS: Final = Counter(
    "aam_drifts",
    "Drifts that affect what a connection syncs, by their most severe change.",
    {"severity": _SEVERITIES},
)
REPAIRS: Final = Counter(
    "aam_repairs",
    "Repairs by the state that they reached; `proposed` ones wait for a person.",
    {
        "outcome": (
            *("proposed", "applied", "rejected", "expired"),
            *("superseded", "failed", "rolled_back"),
        )
    },
)
PRUNED: Final = Counter(
    "aam_rows_pruned",
    "Rows of history that were deleted because they were older than the retention time.",
    {
        "table": (
            *("api_keys", "credential_audit", "drifts", "events", "job_history", "operations"),
            *("refusals", "repairs", "snapshots", "stream_schemas", "stream_states"),
            *("sync_volumes", "timeline_events", "webhook_deliveries"),
        )
    },
)
DELIVERIES: Final = Counter(
    "aam_webhook_deliveries",
    "Attempts to deliver a webhook message; `outcome` is `delivered` or the reason of the failure.",
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
        "Operations that have not ended, by kind.",
        "kind",
        _KINDS,
        age="aam_operations_oldest_age",
    ),
    "events": Backlog(
        "aam_events_waiting",
        "Events that are not published yet; counted up to 10,000.",
        age="aam_events_oldest_age",
    ),
    "jobs": Backlog(
        "aam_jobs_waiting",
        "Jobs that are due and not yet claimed by a worker.",
        "entrypoint",
        _ENTRYPOINTS,
        age="aam_jobs_oldest_age",
    ),
    "sources": Backlog(
        "aam_sources_overdue",
        "Sources whose observation is due and has not started.",
        age="aam_sources_oldest_age",
    ),
    "drifts": Backlog(
        "aam_drifts_open",
        "Connections with an open drift, by the severity of the newest one.",
        "severity",
        _SEVERITIES,
        age="aam_drifts_oldest_age",
    ),
    "repairs": Backlog(
        "aam_repairs_open",
        "Repairs that have not ended, by state.",
        "state",
        ("proposed", "approved", "applying", "verifying", "rolling_back"),
        age="aam_repairs_oldest_age",
    ),
    "messages": Backlog(
        "aam_webhook_messages_waiting",
        "Webhook messages that are neither delivered nor given up.",
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
    """Serve the metrics at http://host:port/metrics from their own thread.

    Raises:
        SystemExit: the port is taken.
    """
    if (host, port) in _served:
        return
    try:
        server, _ = start_http_server(port, addr=host)
    except OSError:
        raise SystemExit(f"METRICS_PORT: port {port} of {host} is not available") from None
    if host in _THIS_MACHINE and (app := server.get_app()) is not None:
        server.set_app(_for_this_machine(app))
    _served.add((host, port))
