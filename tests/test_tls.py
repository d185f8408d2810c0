"""TLS to the database, against a real server with an authority of our own making."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db import Database
from app.settings import MigrationSettings
from scripts.postgres import Postgres, list_binaries
from tests.conftest import SERVICE_ROLE, free_port, make_role, serve, settings_for
from tests.test_roles import alembic

# The wheel's server is built without TLS.
BINARIES = next((folder for folder in list_binaries() if b"libssl" in (folder / "postgres").read_bytes()), None)
pytestmark = pytest.mark.skipif(
    BINARIES is None or shutil.which("openssl") is None, reason="needs a Postgres that is built with TLS, and openssl"
)
NAME = "localhost"  # in the server's certificate; 127.0.0.1 is not
IS_ENCRYPTED = text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")


@dataclass
class Authority:
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def sign(self, name: str) -> None:
        """A key and a certificate for a server, by the name of its host."""
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", self.folder / "server.key", "-out", self.folder / "server.csr")  # fmt: skip
        (self.folder / "san").write_text(f"subjectAltName=DNS:{name}")
        openssl("x509", "-req", "-in", self.folder / "server.csr", "-CA", self.certificate, "-CAkey",
                self.folder / "ca.key", "-days", "2", "-extfile", self.folder / "san",
                "-out", self.folder / "server.crt")  # fmt: skip
        (self.folder / "server.key").chmod(0o600)


def openssl(*arguments: Any) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stderr


def make_authority(folder: Path) -> Authority:
    folder.mkdir()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={folder.name}", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")  # fmt: skip
    return Authority(folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    made = make_authority(folder / "ours")
    made.sign(NAME)
    return made


@pytest.fixture(scope="module")
def other(folder: Path) -> Authority:
    return make_authority(folder / "other")


@dataclass
class Servers:
    encrypted: Callable[..., str]
    plain: Callable[..., str]


@pytest.fixture(scope="module")
def servers(folder: Path, authority: Authority) -> Iterator[Servers]:
    """A server with TLS, on a port of the loopback interface, and one without."""

    def listen(name: str, **settings: str) -> tuple[Postgres, int]:
        port = free_port()
        where = {"listen_addresses": "127.0.0.1", "port": str(port), **settings}
        return Postgres(folder / name, durable=False, binaries=BINARIES, settings=where), port

    def address(port: int) -> Callable[..., str]:
        return lambda host=NAME, **query: (
            make_url(f"postgresql://postgres@{host}:{port}/books").update_query_dict(query).render_as_string()
        )

    files = {"ssl_cert_file": authority.folder / "server.crt", "ssl_key_file": authority.folder / "server.key"}
    encrypted, port = listen("encrypted", ssl="on", **{name: str(file) for name, file in files.items()})
    plain, plain_port = listen("plain")
    with encrypted, plain:
        for server in (encrypted, plain):
            server.create_database("books")
        yield Servers(address(port), address(plain_port))


async def is_encrypted(url: str, **changes: Any) -> bool:
    database = Database(settings_for(url, database_url=url, **changes))
    try:
        async with database.sessions() as session, database.checks.connect() as connection:
            await session.execute(text("select 1"))
            async with database.writes.acquire() as written:
                assert await written.fetchval(IS_ENCRYPTED.text) == await session.scalar(IS_ENCRYPTED)
            return bool((await connection.execute(IS_ENCRYPTED)).scalar())
    finally:
        await database.close()


@pytest.mark.anyio
async def test_the_right_server_is_verified_and_spoken_to_encrypted(servers: Servers, authority: Authority) -> None:
    url = servers.encrypted(sslmode="verify-full")
    assert await is_encrypted(url, database_ca=str(authority.certificate))
    assert await is_encrypted(url, database_ca=authority.certificate.read_text())
    assert await is_encrypted(url, database_ca=authority.certificate.read_text().replace("\n", "\\n"))
    assert await is_encrypted(servers.encrypted(sslmode="verify-full", sslrootcert=str(authority.certificate)))


@pytest.mark.anyio
async def test_a_server_that_is_not_who_it_should_be_is_refused(
    servers: Servers, authority: Authority, other: Authority
) -> None:
    ours, others = str(authority.certificate), str(other.certificate)
    for url, trusted in (
        (servers.encrypted("127.0.0.1", sslmode="verify-full"), ours),
        (servers.encrypted(sslmode="verify-full"), others),
        (servers.encrypted(sslmode="verify-full"), ""),
        (servers.encrypted(sslmode="verify-ca"), others),
        (servers.plain(sslmode="verify-full"), ours),
        (servers.plain(sslmode="require"), ours),
    ):
        with pytest.raises(OSError, match=r"certificate verify failed|rejected SSL upgrade"):
            await is_encrypted(url, database_ca=trusted)


@pytest.mark.anyio
async def test_the_weaker_modes_hold_what_they_say_and_no_more(
    servers: Servers, authority: Authority, other: Authority
) -> None:
    """`verify-ca` takes any host that the authority vouches for, `require` anybody, `prefer` a plain server too."""
    assert await is_encrypted(
        servers.encrypted("127.0.0.1", sslmode="verify-ca"), database_ca=str(authority.certificate)
    )
    assert await is_encrypted(servers.encrypted(sslmode="require"), database_ca=str(other.certificate))
    assert not await is_encrypted(servers.plain(sslmode="prefer"))
    assert not await is_encrypted(servers.encrypted(sslmode="disable"))


def test_migrations_verify_the_server_as_the_service_does(
    servers: Servers, authority: Authority, other: Authority
) -> None:
    owner = servers.encrypted(sslmode="verify-full")
    asyncio.run(make_role(owner))
    refused = alembic(MIGRATION_DATABASE_URL=owner, SERVICE_ROLE=SERVICE_ROLE, DATABASE_CA=str(other.certificate))
    assert "certificate verify failed" in refused.stderr
    done = alembic(MIGRATION_DATABASE_URL=owner, SERVICE_ROLE=SERVICE_ROLE, DATABASE_CA=str(authority.certificate))
    assert 0 == done.returncode, done.stderr
    with serve(owner, database_ca=str(authority.certificate)) as service, service.client() as client:
        assert 201 == client.post("/v1/ledgers", json={"name": "main"}).status_code


def test_an_authority_that_cannot_be_read_stops_the_start() -> None:
    url = "postgres://u@h/books?sslmode=verify-full"
    for given in ("/nowhere/ca.crt", "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----"):
        with pytest.raises(ValueError, match="DATABASE_CA cannot be read"):
            MigrationSettings(_env_file=None, database_url=url, database_ca=given)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="sslmode must be one of"):
        MigrationSettings(_env_file=None, database_url="postgres://u@h/books?sslmode=verify_full")
