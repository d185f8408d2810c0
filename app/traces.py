"""Traces, if an address for them is set: a span for each request, and one for each batch, linked to the requests that
it served. They say which operation, how long and what came of it, and nothing that a customer said.

This module is imported only then, so that who traces nothing pays nothing; only it knows OpenTelemetry.
"""

import asyncio
import threading
import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from starlette.types import Scope

from app.counts import BatchWork
from app.ledger.submissions import Submission
from app.settings import Settings
from app.trace_context import find_callers_span

EXPORT_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 2.0
LINKS_MAX = 128


class Traces:
    """The spans of one service, on their way to a collector. Nobody waits for it; what it cannot take is dropped."""

    def __init__(self, settings: Settings, *, version: str) -> None:
        said = {
            "service.name": "tallystick",
            "service.version": version,
            "deployment.environment.name": settings.environment,
        }
        resource = Resource.create(said)
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=settings.traces_endpoint, timeout=EXPORT_SECONDS_MAX)
        )
        requests = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.traces_ratio), resource=resource, shutdown_on_exit=False
        )
        # A batch is traced exactly if one of its requests is, which no ratio may decide once more.
        batches = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        for provider in (requests, batches):
            provider.add_span_processor(self._processor)
        self._requests = requests.get_tracer("tallystick")
        self._batches = batches.get_tracer("tallystick")

    def begin(self, scope: Scope) -> Span:
        """The span of a request. What it calls itself is put into `scope`, for the writer's batches."""
        caller = _caller(scope)
        context = set_span_in_context(NonRecordingSpan(caller), Context()) if caller else Context()
        span = self._requests.start_span("request", context=context, kind=SpanKind.SERVER)
        scope["trace"] = span.get_span_context()
        return span

    def end(self, span: Span, scope: Scope, *, status: int) -> None:
        if not span.is_recording():
            return
        operation = scope.get("operation_id", "-")
        span.update_name(operation if operation != "-" else "unknown")
        span.set_attributes(
            {
                "http.request.method": scope["method"] if scope["method"].isalpha() else "_OTHER",
                "http.response.status_code": status,
                "http.route": getattr(scope.get("route"), "path", "-"),
                "tallystick.code": scope.get("refusal", "-"),
            }
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    @staticmethod
    def name(span: Span) -> bytes:
        """What a `traceparent` calls the span."""
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()

    def batch(self, work: BatchWork, submissions: Sequence[Submission]) -> None:
        """Tell of a batch that has ended, if one of the requests that it served is traced."""
        served = [each.trace for each in submissions if isinstance(each.trace, SpanContext)]
        traced = [context for context in served if context.trace_flags.sampled]
        if not traced:
            return
        ended = time.time_ns()
        span = self._batches.start_span(
            "batch",
            context=Context(),
            links=[Link(context) for context in traced[:LINKS_MAX]],
            start_time=ended - int(work.elapsed * 1e9),
            attributes={
                "tallystick.batch": work.number,
                "tallystick.submissions": len(submissions),
                "tallystick.events": work.events,
                "tallystick.entries": work.entries,
                "tallystick.outcome": work.outcome,
                **{f"tallystick.{stage}_seconds": seconds for stage, seconds in work.seconds.items()},
            },
        )
        if work.outcome == "failed":
            span.set_status(StatusCode.ERROR)
        span.end(ended)

    async def close(self) -> None:
        """Send what is left. A collector that is away holds up the end for no longer than a moment."""
        sending = threading.Thread(target=self._processor.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, CLOSE_SECONDS_MAX)


def _caller(scope: Scope) -> SpanContext | None:
    found = find_callers_span(scope)
    if found is None:
        return None
    return SpanContext(
        int(found.trace, 16), int(found.span, 16), is_remote=True, trace_flags=TraceFlags(int(found.sampled))
    )
