"""What a process tells about its work: metrics and traces, each where the settings ask for it.

Without METRICS_PORT nothing is measured, and without OTEL_EXPORTER_OTLP_ENDPOINT, which names a
collector, nothing is traced. A span tells routes, endpoints, ids, and statements without their
parameters; `shared.observability.spans` lets nothing else through.
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
"""Paths that are asked for every few seconds, and say nothing about anybody's work."""
_EXPORT_WITHIN_S: Final = 2.0
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Tracing:
    """What spans are made with; None while nothing is traced."""

    provider: TracerProvider | None = None
    tracer: Tracer | None = None


def set_up(service: str, settings: ProcessSettings) -> None:
    """Begin to measure and to trace, as the settings say; before what is measured is made.

    Raises:
        SystemExit: METRICS_PORT is taken.
    """
    if settings.metrics_port is not None:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    if settings.otel_exporter_otlp_endpoint is not None and _Tracing.provider is None:
        # Imported here, as below: a process that traces nothing does without.
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
    """Trace to an exporter from now on; what was made before stays as it is."""
    from shared.observability import spans  # noqa: PLC0415

    _Tracing.provider = provider = spans.provider(exporter, service, share=share)
    _Tracing.tracer = provider.get_tracer("aam")
    return provider


def trace_no_more() -> None:
    """Trace nothing from now on; what was made before stays as it is."""
    _Tracing.provider = _Tracing.tracer = None


def trace_engine(engine: AsyncEngine) -> None:
    """Have an engine's statements become spans, without their parameters."""
    tracer = _Tracing.tracer
    if tracer is None:
        return

    def begin(_c: Any, _cursor: Any, statement: str, _given: Any, context: Any, _many: Any) -> None:
        told = {"db.system": "postgresql", "db.statement": statement}
        name = statement.split(maxsplit=1)[0]
        context.span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=told)

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
    """Have a client's commands become spans."""
    if _Tracing.provider is not None:
        from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415

        RedisInstrumentor.instrument_client(redis, tracer_provider=_Tracing.provider)


def traced_transport(transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    """A transport to a peer; its requests become spans, and carry `traceparent`."""
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
    """Do something as a span, which is of no account while nothing is traced.

    `parent` holds the `traceparent` of whoever caused it in another process or at another time, or
    nothing; without it the span belongs to the one that is under way.
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
            told = error.code if isinstance(error, AamError) else type(error).__name__
            made.set_attribute("error.type", told)
            made.set_status(Status(StatusCode.ERROR))
            raise


def traceparent() -> dict[str, str]:
    """The span that is under way, as `span` later takes it for a parent; else nothing."""
    carrier: dict[str, str] = {}
    if _Tracing.tracer is not None:
        _PROPAGATOR.inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


@contextmanager
def answering(scope: Mapping[str, Any]) -> Iterator[Callable[[int, float], None]]:
    """Answer a request as a span, its caller's child; yields what takes the status and the seconds.

    Both are told by the template of the request's route, never by its path.
    """
    with _request(scope) as request:

        def answered(status: int, seconds: float) -> None:
            method, route = scope["method"], getattr(scope.get("route"), "path", "none")
            metrics.REQUESTS.record(seconds, method=method, route=route, status=str(status))
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
    """The span of a request, whose id the log's lines have, too."""
    if _Tracing.tracer is None or scope["path"] in _UNTRACED:
        yield INVALID_SPAN
        return
    told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
    parent = {"traceparent": told[0]} if len(told) == 1 else {}
    with span(
        "request", kind=SpanKind.SERVER, parent=parent, request_id=logs.request_id()
    ) as request:
        trace_id = format_trace_id(request.get_span_context().trace_id)
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            yield request


@contextmanager
def asking_airbyte(endpoint: str) -> Iterator[None]:
    """Ask Airbyte, measured, as a span that Airbyte is not told of."""
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
        metrics.AIRBYTE.record(seconds, endpoint=endpoint, outcome=outcome)
