"""Export of spans with allowlisted attributes only.

Instrumentation libraries may add attributes with any release. URL queries, logins and values quoted
by exceptions must not reach a trace collector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, Status
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

ATTRIBUTES: Final = frozenset(
    {
        "aam.endpoint", "aam.entrypoint", "aam.event_id", "aam.kind", "aam.operation",
        "aam.request_id", "aam.webhook",
        "db.name", "db.namespace", "db.operation", "db.operation.name", "db.query.text",
        "db.statement", "db.system", "db.system.name",
        "error.type", "exception.type",
        "http.method", "http.request.method", "http.response.status_code", "http.route",
        "http.status_code", "http.url", "url.full",
    }
)  # fmt: skip
"""Every exported attribute of spans and of their events."""

_URL_TAIL: Final = re.compile(r"[?#].*", re.DOTALL)
_URL_LOGIN: Final = re.compile(r"://[^/@]*@")
_LONGEST: Final = 2_000
_QUEUED: Final = 2_048


def provider(exporter: SpanExporter, service: str, *, share: float) -> TracerProvider:
    """A provider that exports in the background, and drops spans if the collector is slow.

    `share` is the sampled fraction of root spans; a child span follows its parent.
    """
    made = TracerProvider(
        resource=Resource.create({SERVICE_NAMESPACE: "aam", SERVICE_NAME: service}),
        sampler=ParentBased(_Begun(share)),
    )
    # At shutdown at most one batch is left, so an unavailable collector costs one export timeout.
    made.add_span_processor(
        BatchSpanProcessor(
            _Scrubbing(exporter), max_queue_size=_QUEUED, max_export_batch_size=_QUEUED
        )
    )
    return made


class _Begun(TraceIdRatioBased):
    """Samples requests, jobs and operations, but no client span without a parent.

    Periodic tasks query the registry several times per second.
    """

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Whether to sample a span without a parent."""
        del trace_state
        if kind is SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return super().should_sample(parent_context, trace_id, name, kind, attributes, links)


class _Scrubbing(SpanExporter):
    """Removes attributes that are not allowlisted before export."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans with allowlisted attributes."""
        return self._exporter.export([_scrubbed(span) for span in spans])

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


def _scrubbed(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name[:_LONGEST],
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_scrubbed_attributes(span.attributes),
        events=[
            Event(one.name, _scrubbed_attributes(one.attributes), one.timestamp)
            for one in span.events
        ],
        links=[Link(one.context, _scrubbed_attributes(one.attributes)) for one in span.links],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _scrubbed_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: _cut(value) if isinstance(value, str) else value
        for name, value in (attributes or {}).items()
        if name in ATTRIBUTES
    }


def _cut(value: str) -> str:
    if "://" in value:
        value = _URL_LOGIN.sub("://", _URL_TAIL.sub("", value))
    return value[:_LONGEST]
