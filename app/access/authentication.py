"""Whose key a request carries."""

from collections.abc import Callable
from datetime import datetime

from app.access.callers import Caller, operator
from app.access.known_keys import KnownKeys
from app.access.secrets import digest, is_well_formed
from app.access.tokens import Tokens
from app.ledger.refusals import Unauthenticated

# Nothing longer is looked at.
SECRET_BYTES_MAX = 8 * 1024


class Authentication:
    """Knows the keys of the settings, those that the operator made, and the tokens of an issuer if there is one.

    Secrets are looked up by their SHA-256: what the time of a look-up could tell is about hashes that nobody chooses.
    """

    def __init__(
        self,
        actors: dict[str, str],
        keys: KnownKeys,
        tokens: Tokens | None,
        clock: Callable[[], datetime],
        *,
        open_to_all: bool = False,
    ) -> None:
        self._operators = {digest(secret.encode()): operator(label) for secret, label in actors.items()}
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._open_to_all = open_to_all

    def find(self, secret: bytes) -> Caller | None:
        """The caller, as far as that is known at once."""
        if len(secret) > SECRET_BYTES_MAX:
            return None
        hashed = digest(secret)
        caller = self._operators.get(hashed)
        if caller is not None:
            return caller
        if self._open_to_all:
            return operator()
        key = self._keys.find(hashed)
        if key is not None:
            return key.caller if key.is_live(self._clock()) else None
        return self._tokens.find(hashed) if self._tokens is not None else None

    async def find_anew(self, secret: bytes) -> Caller:
        """The caller, whatever it takes. Raises `Unauthenticated`; and `StorageUnavailable` or `Overloaded` if that
        cannot be told now."""
        if len(secret) > SECRET_BYTES_MAX:
            raise Unauthenticated()
        if is_well_formed(secret):
            # It may have been made a moment ago, by another process.
            key = await self._keys.find_anew(digest(secret))
            if key is not None and key.is_live(self._clock()):
                return key.caller
        elif self._tokens is not None:
            return await self._tokens.verify(secret)
        raise Unauthenticated()
