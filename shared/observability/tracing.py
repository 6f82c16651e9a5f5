"""Metrics and traces of a process, each enabled by a setting.

METRICS_PORT enables metrics, and OTEL_EXPORTER_OTLP_ENDPOINT, the URL of a collector, enables
traces. Spans contain routes, endpoints, ids, and SQL statements without their parameters;
`shared.observability.spans` removes everything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import event

from shared.config import ProcessSettings
from shared.errors import AamError
from shared.observability import logs, metrics

if TYPE_CHECKING:
    import httpx
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from redis.asyncio import Redis
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

_UNTRACED: Final = frozenset({"/health", "/ready"})
"""Paths of health checks, which are polled every few seconds."""
_EXPORT_WITHIN_S: Final = 2.0
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Tracing:
    """The process's tracer; None while tracing is off."""

    provider: TracerProvider | None = None
    tracer: Tracer | None = None


def set_up(service: str, settings: ProcessSettings) -> None:
    """Enable metrics and traces by the settings; call it before creating clients and engines.

    Raises:
        SystemExit: METRICS_PORT is taken.
    """
    if settings.metrics_port is not None:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    if settings.otel_exporter_otlp_endpoint is not None and _Tracing.provider is None:
        # Imported here, as below, since only a process that traces needs these packages.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        collector = str(settings.otel_exporter_otlp_endpoint).rstrip("/")
        trace_to(
            OTLPSpanExporter(endpoint=f"{collector}/v1/traces", timeout=_EXPORT_WITHIN_S),
            service,
            share=settings.otel_traces_sampler_arg,
        )


def trace_to(exporter: SpanExporter, service: str, *, share: float = 1.0) -> TracerProvider:
    """Trace to an exporter from now on; existing clients and engines are not affected."""
    from shared.observability import spans  # noqa: PLC0415

    _Tracing.provider = provider = spans.provider(exporter, service, share=share)
    _Tracing.tracer = provider.get_tracer("aam")
    return provider


def stop_tracing() -> None:
    """Stop tracing from now on; existing clients and engines are not affected."""
    _Tracing.provider = _Tracing.tracer = None


def trace_engine(engine: AsyncEngine) -> None:
    """Trace an engine's statements, without their parameters."""
    tracer = _Tracing.tracer
    if tracer is None:
        return

    def begin(_c: Any, _cursor: Any, statement: str, _given: Any, context: Any, _many: Any) -> None:
        attributes = {"db.system": "postgresql", "db.statement": statement}
        name = statement.split(maxsplit=1)[0]
        context.span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def end(_c: Any, _cursor: Any, _statement: str, _given: Any, context: Any, _many: Any) -> None:
        context.span.end()

    def fail(trouble: ExceptionContext) -> None:
        made = getattr(trouble.execution_context, "span", None)
        if made is not None:
            made.set_attribute("error.type", type(trouble.original_exception).__name__)
            made.set_status(Status(StatusCode.ERROR))
            made.end()

    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)
    event.listen(engine.sync_engine, "handle_error", fail)


def trace_redis(redis: Redis) -> None:
    """Trace a client's commands."""
    if _Tracing.provider is not None:
        from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415

        RedisInstrumentor.instrument_client(redis, tracer_provider=_Tracing.provider)


def traced_transport(transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    """A transport to another service that traces requests and sends `traceparent`."""
    if _Tracing.provider is None:
        return transport
    from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport  # noqa: PLC0415

    return AsyncOpenTelemetryTransport(transport, tracer_provider=_Tracing.provider)


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Mapping[str, str] | None = None,
    **attributes: str,
) -> Iterator[Span]:
    """Run a block as a span; a no-op while tracing is off.

    `parent` holds the `traceparent` of the cause in another process or at an earlier time, or is
    empty for a root span; None makes it a child of the current span.
    """
    if _Tracing.tracer is None:
        yield INVALID_SPAN
        return
    with _Tracing.tracer.start_as_current_span(
        name,
        context=None if parent is None else _PROPAGATOR.extract(parent),
        kind=kind,
        attributes={f"aam.{label}": value for label, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            error_type = error.code if isinstance(error, AamError) else type(error).__name__
            made.set_attribute("error.type", error_type)
            made.set_status(Status(StatusCode.ERROR))
            raise


def traceparent() -> dict[str, str]:
    """The current span as the `parent` of a later `span`; empty if there is none."""
    carrier: dict[str, str] = {}
    if _Tracing.tracer is not None:
        _PROPAGATOR.inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


@contextmanager
def answering(scope: Mapping[str, Any]) -> Iterator[Callable[[int, float], None]]:
    """Trace a request as its caller's child; yields a function to report status and seconds.

    Metric and span carry the template of the request's route, never its path.
    """
    with _request(scope) as request:

        def answered(status: int, seconds: float) -> None:
            method, route = scope["method"], getattr(scope.get("route"), "path", "none")
            metrics.REQUESTS.labels(method=method, route=route, status=str(status)).observe(seconds)
            if request.is_recording():
                request.update_name(f"{method} {route}")
                request.set_attributes(
                    {
                        "http.request.method": method,
                        "http.route": route,
                        "http.response.status_code": status,
                    }
                )

        yield answered


@contextmanager
def _request(scope: Mapping[str, Any]) -> Iterator[Span]:
    """Start a request's span, and add its trace id to log lines."""
    if _Tracing.tracer is None or scope["path"] in _UNTRACED:
        yield INVALID_SPAN
        return
    headers = [
        value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"
    ]
    parent = {"traceparent": headers[0]} if len(headers) == 1 else {}
    with span(
        "request", kind=SpanKind.SERVER, parent=parent, request_id=logs.request_id()
    ) as request:
        trace_id = format_trace_id(request.get_span_context().trace_id)
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            yield request


@contextmanager
def asking_airbyte(endpoint: str) -> Iterator[None]:
    """Measure and trace a call to Airbyte, without sending it `traceparent`."""
    began, outcome = time.perf_counter(), metrics.OTHER
    try:
        with span(f"airbyte {endpoint}", kind=SpanKind.CLIENT, endpoint=endpoint):
            yield
            outcome = "ok"
    except AamError as error:
        outcome = error.code
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        seconds = time.perf_counter() - began
        metrics.AIRBYTE.labels(endpoint=endpoint, outcome=outcome).observe(seconds)
