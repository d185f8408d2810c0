"""`python -m app`: the server process of a container, listening on HOST and PORT."""

import signal
import sys

from pydantic import ValidationError

from app.main import create_app
from app.server import Server, configure_server
from app.settings import Settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; then answer what was accepted, and exit with 0."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        # While uvicorn runs it has handlers of its own; when it has drained it sends itself the signal again.
        signal.signal(signum, lambda *_: sys.exit(0))
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(f"The settings do not allow a start: {error}")
    Server(configure_server(create_app(settings), settings, host=settings.host, port=settings.port)).run()


if __name__ == "__main__":
    main()
