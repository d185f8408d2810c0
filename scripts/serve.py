"""Run the service on this machine: `scripts/serve` in a checkout, one process, Ctrl-C ends it."""

# What is slow to import is imported where it is used, so that a signal or a mistake is answered before it.

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "tallystick"
BACKLOG = 2048
PORT_MAX = 65535

READY = """
Tallystick is listening. Its documentation: {url}/docs

The API key is {key_note}. In another terminal, open a ledger and two accounts, and move 12.50 USD:

  export TALLYSTICK_URL={url} TALLYSTICK_KEY={key}
  api() {{
    curl -sS "$TALLYSTICK_URL/v1/ledgers$1" -H "Authorization: Bearer $TALLYSTICK_KEY" \\
      -H 'Content-Type: application/json' "${{@:2}}"; echo
  }}
  api '' -d '{{"name": "shop"}}'
  api /shop/accounts -H 'Idempotency-Key: open-cash' \\
    -d '{{"path": "bank:cash", "asset": "USD/2", "normal_side": "debit"}}'
  api /shop/accounts -H 'Idempotency-Key: open-42' \\
    -d '{{"path": "users:42:wallet", "asset": "USD/2", "normal_side": "credit", "minimum_balance": "0"}}'
  api /shop/transactions -H 'Idempotency-Key: deposit-1001' \\
    -d '{{"postings": [{{"debit_account": "bank:cash", "credit_account": "users:42:wallet", "amount": "1250"}}]}}'

Ctrl-C stops it.
"""


def main() -> None:
    """Return when a signal has ended the service, with everything that was started stopped again."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        # While uvicorn runs it has handlers of its own; when it has drained it sends itself the signal again.
        signal.signal(signum, lambda *_: sys.exit(0))
    from dotenv import load_dotenv

    from scripts.postgres import Postgres, PostgresError

    load_dotenv(ROOT / ".env")  # as the service would; what the environment says goes first
    arguments = _parse_arguments()
    try:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(_listen(arguments.host, arguments.port))
            key_note, key = _settle_api_key(arguments.data)
            if not os.environ.get("DATABASE_URL"):
                postgres = stack.enter_context(Postgres(arguments.data))
                postgres.create_database(DATABASE)
                os.environ["DATABASE_URL"] = postgres.url(DATABASE)
            os.environ.setdefault("DRAIN_S", "0")  # no proxy is in front of it, and who pressed Ctrl-C waits
            settings = _read_settings()
            _migrate()
            _serve(settings, listener, READY.format(url=_url(listener), key_note=key_note, key=key))
    except PostgresError as error:
        sys.exit(str(error))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=_port_number,
        default=os.environ.get("PORT") or 8000,
        help="port to listen on; 0 takes a free one (default: PORT, or 8000)",
    )
    parser.add_argument(
        "--data",
        type=lambda path: (ROOT / path).resolve(),
        default=os.environ.get("TALLYSTICK_DATA") or ".data/postgres",
        help="folder of the database, if DATABASE_URL is not set, and of the API key, if API_KEY is not set; "
        "a relative path starts in the repository (default: TALLYSTICK_DATA, or .data/postgres)",
    )
    return parser.parse_args()


def _port_number(text: str) -> int:
    if not 0 <= (port := int(text)) <= PORT_MAX:
        raise ValueError
    return port


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is started for it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        sys.exit(f"Cannot listen on {host} port {port}: {error}. Choose another with --port.")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _settle_api_key(folder: Path) -> tuple[str, str]:
    """Hand the app a key, and say where it is from and how a shell can name it.

    A key that the operator chose is not shown again.
    """
    if os.environ.get("API_KEY"):
        return "in API_KEY", "${API_KEY##*[,:]}"  # the secret of the last key, labelled or not
    file = folder / "api_key"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        contextlib.suppress(FileExistsError),
        open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new,
    ):
        new.write(secrets.token_hex(24))
    os.environ["API_KEY"] = key = file.read_text().strip()
    return f"{key} (kept in {file})", key


def _read_settings() -> Settings:
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        sys.exit(str(error))


def _migrate() -> None:
    from alembic.command import upgrade
    from alembic.config import Config
    from asyncpg import InvalidAuthorizationSpecificationError, InvalidCatalogNameError

    try:
        upgrade(Config(ROOT / "alembic.ini"), "head")
    except (OSError, InvalidAuthorizationSpecificationError, InvalidCatalogNameError) as error:
        sys.exit(f"Cannot open the database that DATABASE_URL names: {error}")


def _serve(settings: Settings, listener: socket.socket, ready: str) -> None:
    from app.server import Server, configure_server

    class Announcing(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                # Not a log line: whoever reads the logs has no use for the key.
                print(ready, file=sys.stderr, flush=True)

    Announcing(configure_server("app.main:app", settings)).run(sockets=[listener])


if __name__ == "__main__":
    main()
