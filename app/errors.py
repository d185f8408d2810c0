"""Error reports to Sentry, if a DSN is set: errors only, without bodies, headers, or the values of variables."""

from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport

from app.settings import Settings


def configure_error_reports(settings: Settings) -> None:
    """Report what `capture_exception` is given, and nothing else. Without a DSN, report nothing."""
    if settings.sentry_dsn is None:
        return
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.environment,
        # No integration patches anything or listens to the logs: the two places that meet unforeseen errors
        # report them themselves.
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=None,
        before_send=_scrub,
        transport=_Transport,
    )


class _Transport(HttpTransport):
    """Sends no more than the event: the envelope would name a trace that there is none of, and the DSN's key in it."""

    def capture_envelope(self, envelope: Envelope) -> None:
        envelope.headers.pop("trace", None)
        super().capture_envelope(envelope)


def _scrub(event: Any, _: dict[str, Any]) -> Any:
    """Keep what kind of error it was and where, not what it said: a database's message may quote values."""
    for part in ("request", "user", "extra", "breadcrumbs", "server_name"):
        event.pop(part, None)
    for error in event.get("exception", {}).get("values", []):
        error["value"] = ""
    return event
