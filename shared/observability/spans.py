"""What of a span leaves the process: what is on a list here, and nothing else.

Instrumentation tells whatever its next release sees fit; that a URL has a query, a login has a name
or an exception quotes a value is nothing that a collector of traces is to know.
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
"""Every attribute of spans and of their events that is told."""

_URL_TAIL: Final = re.compile(r"[?#].*", re.DOTALL)
_URL_LOGIN: Final = re.compile(r"://[^/@]*@")
_LONGEST: Final = 2_000
_QUEUED: Final = 2_048


def provider(exporter: SpanExporter, service: str, *, share: float) -> TracerProvider:
    """A provider that exports in the background, and drops what a slow collector does not take.

    `share` of what is begun is sampled; what is a part of something, as that is.
    """
    made = TracerProvider(
        resource=Resource.create({SERVICE_NAMESPACE: "aam", SERVICE_NAME: service}),
        sampler=ParentBased(_Begun(share)),
    )
    # One batch at most is left at the end: a collector that is away delays the end by its time.
    made.add_span_processor(
        BatchSpanProcessor(
            _Scrubbing(exporter), max_queue_size=_QUEUED, max_export_batch_size=_QUEUED
        )
    )
    return made


class _Begun(TraceIdRatioBased):
    """Samples what a request, a job or an operation has begun, and no lonely statement.

    The looks that are taken beside the requests ask the registry several times a second.
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
        """Whether a span without a parent is to be told."""
        del trace_state
        if kind is SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return super().should_sample(parent_context, trace_id, name, kind, attributes, links)


class _Scrubbing(SpanExporter):
    """Hands spans on without what is not on the list."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand on what may be told."""
        return self._exporter.export([_scrubbed(span) for span in spans])

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)


def _scrubbed(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name[:_LONGEST],
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_told(span.attributes),
        events=[Event(one.name, _told(one.attributes), one.timestamp) for one in span.events],
        links=[Link(one.context, _told(one.attributes)) for one in span.links],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _told(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: _cut(value) if isinstance(value, str) else value
        for name, value in (attributes or {}).items()
        if name in ATTRIBUTES
    }


def _cut(value: str) -> str:
    if "://" in value:
        value = _URL_LOGIN.sub("://", _URL_TAIL.sub("", value))
    return value[:_LONGEST]
