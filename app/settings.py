"""Every setting, typed and documented. A test holds the table of docs/settings.md against these classes."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.tls import MODES, make_ssl

# As a browser names it: lower case, no path, no port that the scheme has anyway.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SECRET_LENGTH_MIN = 16
ROLE = r"^[A-Za-z_][A-Za-z0-9_.@$-]{0,62}$"


def _name_the_driver(value: str, info: ValidationInfo) -> str:
    # The library's own message would quote what it took for a port, which may be the password.
    refused = ValueError(f"{(info.field_name or '').upper()} must be a postgresql+asyncpg:// address")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise refused from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+asyncpg")
    if url.drivername != "postgresql+asyncpg":
        raise refused
    # What libpq calls otherwise, or knows and asyncpg does not; hosts of Postgres hand both out.
    query = {("ssl" if name == "sslmode" else name): value for name, value in url.query.items()}
    query.pop("channel_binding", None)
    if query != dict(url.query):
        url = url.set(query=query)
    if url.query.get("ssl", "prefer") not in MODES:
        raise ValueError(f"sslmode must be one of {', '.join(MODES)}")
    return url.render_as_string(hide_password=False)


def _get_option(url: URL, name: str) -> str | None:
    """An option of a database address. Raises ValueError if the address has it twice."""
    value = url.query.get(name)
    if isinstance(value, tuple):
        raise ValueError(f"The database address has the option {name} twice")
    return value


DatabaseUrl = Annotated[str, AfterValidator(_name_the_driver)]


class DatabaseSettings(BaseSettings):
    """How to reach the database. Read from the environment, and from a file `.env` beside the service."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: DatabaseUrl = Field(
        description="The Postgres database: `postgresql+asyncpg://user:password@host/name`. "
        "`postgres://` and `postgresql://` work too, also with `sslmode`."
    )
    database_ca: str = Field(
        "",
        description="With `sslmode=verify-full`, the certificate authorities for the database: a file in PEM, or "
        "its text. Default: those that the system trusts.",
    )

    @model_validator(mode="after")
    def _can_verify(self) -> Self:
        for url in self.list_urls():
            try:
                self.get_address(url)
            except OSError as error:
                raise ValueError(f"DATABASE_CA cannot be read: {type(error).__name__}") from None
        return self

    def list_urls(self) -> list[str]:
        return [self.database_url]

    def get_address(self, url: str) -> tuple[URL, dict[str, Any]]:
        """What to connect to, and the driver's arguments that say how the server is verified."""
        address = make_url(url)
        # `sslrootcert` is what libpq calls it, so it may come with an address.
        authorities = self.database_ca or (_get_option(address, "sslrootcert") or "").removeprefix("system")
        secured = make_ssl(_get_option(address, "ssl"), authorities)
        return address.difference_update_query(["ssl", "sslrootcert"]), {"ssl": secured} if secured else {}


class MigrationSettings(DatabaseSettings):
    """What migrations need. The service itself never reads the owner's address."""

    database_url: DatabaseUrl | None = None  # type: ignore[assignment]
    migration_database_url: DatabaseUrl | None = Field(
        None,
        description="The same database, with the role that owns its tables. Only `alembic` reads it. "
        "Default: migrations run as the role of `DATABASE_URL`.",
    )
    service_role: Annotated[str, Field(pattern=ROLE)] | None = Field(
        None,
        description="The role to which migrations grant what the service needs. Default: the role of `DATABASE_URL`, "
        "if `MIGRATION_DATABASE_URL` has another.",
    )

    @model_validator(mode="after")
    def _know_whom_to_grant(self) -> MigrationSettings:
        if self.grantee is not None and not re.fullmatch(ROLE, self.grantee):
            raise ValueError("The role of DATABASE_URL has a name that cannot be granted to: set SERVICE_ROLE")
        return self

    def list_urls(self) -> list[str]:
        return [url for url in (self.migration_database_url, self.database_url) if url]

    @property
    def owner_url(self) -> str:
        if url := self.migration_database_url or self.database_url:
            return url
        raise ValueError("Neither MIGRATION_DATABASE_URL nor DATABASE_URL is set")

    @property
    def grantee(self) -> str | None:
        """The role that needs to be granted something, if any does."""
        if self.service_role or not (self.migration_database_url and self.database_url):
            return self.service_role
        service, owner = make_url(self.database_url).username, make_url(self.migration_database_url).username
        return service if service != owner else None


class Settings(DatabaseSettings):
    """What the service needs beside its database."""

    api_key: SecretStr = Field(
        SecretStr(""),
        description="The operator's API keys, comma-separated: each a secret (the actor of its events is `operator`) "
        "or `label:secret`. A secret has at least 16 characters.",
    )
    development: bool = Field(
        False, description="Allows a start without any API key. Then no request is authenticated."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The lowest level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="JSON lines, or lines for people. `auto`: lines for people if stdout is a terminal."
    )
    sentry_dsn: SecretStr | None = Field(None, description="The Sentry project that receives error reports.")
    environment: str = Field("production", description="The name of this deployment in error reports.")
    metrics: Literal["key", "open", "closed"] = Field(
        "key",
        description="Who may read `/metrics`: callers with an API key (`key`), everybody (`open`) or nobody "
        "(`closed`).",
    )
    docs: Literal["open", "closed"] = Field(
        "open", description="Whether `/docs`, the contract and the pages of the errors are served."
    )
    cors_origins: str = Field(
        "",
        description="Origins, comma-separated, whose pages may call the API from a browser, such as "
        "`https://app.example.com`.",
    )
    traces_endpoint: str | None = Field(
        None,
        description="Where traces are sent, by OTLP over HTTP, such as `http://collector:4318/v1/traces`.",
    )
    traces_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="The share of requests that is traced, unless a `traceparent` decides."
    )
    host: str = Field("127.0.0.1", description="The address that `python -m app` listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="The port that `python -m app` listens on.")
    drain_s: Annotated[float, Field(ge=0, le=300)] = Field(
        5.0,
        description="Seconds after SIGTERM in which new requests are still served, with readiness down: longer than a "
        "proxy takes to notice.",
    )
    shutdown_timeout_s: Annotated[float, Field(ge=1, le=600)] = Field(
        20.0, description="Seconds that a graceful shutdown may take, from the signal to the exit."
    )
    allow_unsafe_database: bool = Field(
        False,
        description="Be ready although `fsync` or `synchronous_commit` is off in Postgres, which can then lose "
        "confirmed writes: for tests only.",
    )
    read_pool_size: Annotated[int, Field(ge=1, le=100)] = Field(8, description="Connections for reads.")
    write_pool_size: Annotated[int, Field(ge=1, le=100)] = Field(4, description="Connections for the writer.")
    plan_cache_mode: Literal["force_generic_plan", "auto"] = Field(
        "force_generic_plan",
        description="How the writer's statements are planned. Use `auto` where Citus distributes the tables.",
    )
    transaction_pooler: bool = Field(
        False,
        description="Whether `DATABASE_URL` is a pooler in transaction mode, such as pgbouncer. Then no prepared "
        "statement, setting or LISTEN outlives a transaction.",
    )
    pool_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="Seconds that a request waits for a connection before it is `overloaded`."
    )
    database_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        8.0,
        description="Seconds that one exchange with the database may take; one of the writer takes at most 6.",
    )
    write_deadline_s: Annotated[float, Field(gt=0, le=120)] = Field(
        20.0,
        description="Seconds that a write may wait for its commit before it is answered with a 503.",
    )
    clock_skew_max_s: Annotated[float, Field(gt=0, le=1e9)] = Field(
        5.0,
        description="Seconds that the clock of a process may be away from the database's before it is not ready and "
        "its writes are `clock_skewed`.",
    )
    body_timeout_s: Annotated[float, Field(gt=0, le=120)] = Field(
        10.0, description="Seconds that the body of a request may take to arrive."
    )
    body_memory_mib: Annotated[int, Field(ge=4, le=4096)] = Field(
        32, description="MiB that the bodies of all requests being handled may take before more are `overloaded`."
    )
    requests_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        500,
        description="Requests that a process handles at once before more are `overloaded`. Requests that wait for an "
        "event, or for their body, do not count.",
    )
    connections_max: Annotated[int, Field(ge=10, le=100_000)] = Field(
        4000,
        description="Connections that a process holds open. The longest idle one makes room for a new one.",
    )
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        75,
        description="Seconds that a connection may be idle between requests: longer than the proxy in front keeps it.",
    )
    feed_waiters_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="Requests of a process that may wait for events at once before more are `overloaded`."
    )

    key_requests_per_s: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        0.0, description="Requests a second that an API key may make to a process; 0 for no limit."
    )
    key_burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100, description="Requests that an API key may make at once, where they are limited."
    )
    address_failures_per_s: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        5.0,
        description="Requests a second without a valid API key that an address may make to a process; 0 for no limit.",
    )
    address_failure_burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100, description="Requests without a valid API key that an address may make at once, where they are limited."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks, comma-separated, whose `X-Forwarded-For` is trusted; `*` for all. "
        "Without any, the client is the peer address.",
    )

    jwt_issuer: str = Field("", description="The issuer whose signed tokens are accepted beside API keys.")
    jwt_audience: str = Field("", description="The audience that these tokens must name.")
    jwt_jwks: str = Field(
        "",
        description="The issuer's public keys (JWKS): a file, or an `https://` address (`http://` on localhost).",
    )
    jwt_claim: str = Field("tallystick", description="The claim of a token that holds the access scope of its bearer.")

    @model_validator(mode="after")
    def _know_the_issuer(self) -> Settings:
        if any((self.jwt_issuer, self.jwt_audience, self.jwt_jwks)):
            if not all((self.jwt_issuer, self.jwt_audience, self.jwt_jwks, self.jwt_claim)):
                raise ValueError("JWT_ISSUER, JWT_AUDIENCE and JWT_JWKS belong together")
            url = urlsplit(self.jwt_jwks)
            if "://" in self.jwt_jwks and not (
                (url.scheme == "https" and url.hostname)
                or (url.scheme == "http" and url.hostname in ("localhost", "127.0.0.1", "::1"))
            ):
                raise ValueError("JWT_JWKS must be a file, or an https:// address")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for each in filter(None, map(str.strip, value.split(","))):
            if each != "*":
                try:
                    ip_network(each)
                except ValueError:
                    raise ValueError("TRUSTED_PROXIES: not an address or a network") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for each in filter(None, map(str.strip, value.split(","))):
            # Not `*` either: who serves for development, without keys, would let every page of the web in.
            if not ORIGIN.fullmatch(each) or re.fullmatch(r"http:.*:80|https:.*:443", each):
                raise ValueError("CORS_ORIGINS: not an origin as a browser names it, such as https://app.example.com")
        return value

    @model_validator(mode="after")
    def _have_keys(self) -> Settings:
        if not self.actors() and not self.jwt_issuer and not self.development:
            raise ValueError("API_KEY is not set; set it, or DEVELOPMENT=true to serve without authentication")
        return self

    @model_validator(mode="after")
    def _leave_time_to_stop(self) -> Settings:
        if self.drain_s >= self.shutdown_timeout_s:
            raise ValueError("DRAIN_S has to be less than SHUTDOWN_TIMEOUT_S, which includes it")
        return self

    @property
    def lets_everybody_in(self) -> bool:
        """Only for development, and only as long as there is nothing to ask for."""
        return self.development and not self.actors() and not self.jwt_issuer

    def origins(self) -> frozenset[str]:
        return frozenset(filter(None, map(str.strip, self.cors_origins.split(","))))

    def actors(self) -> dict[str, str]:
        """The label of each secret. Raises ValueError, without the secret, for one that may not be used."""
        found: dict[str, str] = {}
        for number, item in enumerate(self.api_key.get_secret_value().split(","), 1):
            if not item.strip():
                continue
            label, colon, secret = item.strip().rpartition(":")
            if colon and not LABEL.fullmatch(label):
                raise ValueError(f"API_KEY: the label of key {number} is not made of letters, digits, _, . and -")
            if label == "system":
                raise ValueError(f"API_KEY: key {number} has the label `system`, which is reserved")
            if len(secret) < SECRET_LENGTH_MIN or not re.fullmatch(r"[!-~]+", secret):
                raise ValueError(
                    f"API_KEY: the secret of key {number} is not of {SECRET_LENGTH_MIN} or more visible characters"
                )
            found[secret] = label or "operator"
        return found
