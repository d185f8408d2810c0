"""The public keys of an issuer of tokens (a JWKS): from a file or an address, kept in the process.

They are read again every five minutes, and when a token names a key that is not among them, though not more often than
twice a minute: nobody can have the issuer asked by inventing names. When they cannot be read, the last ones count for
an hour more.
"""

import asyncio
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from app.background import Background

log = structlog.get_logger()

REFRESH_SECONDS = 300.0
# How soon after one look an unknown name may cause the next.
UNKNOWN_SECONDS = 30.0
STALE_SECONDS_MAX = 3_600.0
ANSWER_SECONDS_MAX = 3.0
BYTES_MAX = 256 * 1024
KEYS_MAX = 100
# Of public keys only: with a secret one, whoever can verify could sign.
ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
)


class IssuerKeys(Background):
    """One per process, on its event loop. `changed` is called whenever the keys are no longer what they were."""

    def __init__(self, source: str, changed: Callable[[], None]) -> None:
        self._source = source
        self._changed = changed
        self._document = b""
        self._keys: dict[str, PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, name: str) -> PyJWK | None:
        key = self._keys.get(name)
        if key is None:
            async with self._reading:
                if asyncio.get_running_loop().time() - self._tried_at >= UNKNOWN_SECONDS:
                    await self._read()
            key = self._keys.get(name)
        return key

    async def _run(self) -> None:
        while True:  # until it is cancelled
            async with self._reading:
                await self._read()
            await asyncio.sleep(REFRESH_SECONDS)

    async def _read(self) -> None:
        now = self._tried_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(2 * ANSWER_SECONDS_MAX):
                document = await asyncio.to_thread(_fetch, self._source)
            keys = _read_keys(document)
        except Exception as error:
            log.warning("jwks_not_read", error=type(error).__name__)
            if now - self._read_at > STALE_SECONDS_MAX:
                self._keep({}, b"")
            return
        self._read_at = now
        self._keep(keys, document)

    def _keep(self, keys: dict[str, PyJWK], document: bytes) -> None:
        if document != self._document:
            self._keys, self._document = keys, document
            self._changed()


def _fetch(source: str) -> bytes:
    if "://" not in source:
        with Path(source).open("rb") as file:
            return _bounded(file.read(BYTES_MAX + 1))
    # Neither redirects nor proxies: what the settings name is what is asked.
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    with opener.open(source, timeout=ANSWER_SECONDS_MAX) as answer:
        return _bounded(answer.read(BYTES_MAX + 1))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _bounded(document: bytes) -> bytes:
    if len(document) > BYTES_MAX:
        raise ValueError("the keys of the issuer are too long")
    return document


def _read_keys(document: bytes) -> dict[str, PyJWK]:
    """The keys that signatures can be verified with, by their names."""
    keys: dict[str, PyJWK] = {}
    for said in json.loads(document)["keys"][:KEYS_MAX]:
        try:
            if said.get("use", "sig") != "sig" or "d" in said:
                continue
            key = PyJWK(said)
            if key.algorithm_name in ALGORITHMS and not key.Algorithm.check_key_length(key.key):
                keys[said["kid"]] = key
        except (PyJWTError, KeyError, TypeError):
            continue  # of a kind that we do not know, or without a name
    return keys
