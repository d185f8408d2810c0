"""Signed tokens (JWT) of an issuer, as an alternative to keys: whoever has one may do what one of its claims says."""

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import jwt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.access.callers import RESERVED_LABELS, Caller
from app.access.issuer_keys import ALGORITHMS, IssuerKeys
from app.access.secrets import digest
from app.ledger.refusals import Unauthenticated
from app.ledger.scopes import Scope
from app.settings import LABEL

# How far the clocks of the issuer and of the service may be apart.
LEEWAY_SECONDS = 10
KNOWN_MAX = 10_000
# What metrics call the bearers of all tokens whose claim has no label.
SHOWN = "token"

_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# We compare times with the service's own clock.
_OPTIONS: Any = {"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


class Claim(BaseModel):
    """What a token says of its bearer's scope, in the words of `createApiKey`. A word that is not one of these is
    refused: a bound that is misspelt would be none."""

    model_config = ConfigDict(strict=True, extra="forbid")

    label: str | None = None
    operations: Annotated[list[Literal["read", "post", "hold", "admin"]], Field(min_length=1)]
    ledgers: Annotated[list[str], Field(min_length=1)] | None = None
    account_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")] | None = None
    amount_max: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,37}$")] | None = None

    def scope(self) -> Scope:
        ledgers = None if self.ledgers is None else frozenset(self.ledgers)
        amount_max = None if self.amount_max is None else int(self.amount_max)
        return Scope(frozenset(self.operations), ledgers, self.account_prefix, amount_max)


class Tokens:
    """Verifies the tokens of one issuer for one audience. What was found good is kept until it expires."""

    def __init__(self, *, issuer: str, audience: str, jwks: str, claim: str, clock: Callable[[], datetime]) -> None:
        self._issuer = issuer
        self._audience = audience
        self._claim = claim
        self._clock = clock
        self.keys = IssuerKeys(jwks, changed=self._forget)
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()

    def find(self, hashed: bytes) -> Caller | None:
        """The bearer of a token of this hash, if it was verified before."""
        known = self._known.get(hashed)
        if known is None or not self._clock().timestamp() < known[1] + LEEWAY_SECONDS:
            return None
        return known[0]

    async def verify(self, token: bytes) -> Caller:
        """The bearer of a token. Raises `Unauthenticated`, whatever is wrong with it."""
        if _TOKEN.fullmatch(token) is None:
            raise Unauthenticated()
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header or header["alg"] not in ALGORITHMS:
                raise Unauthenticated()
            key = await self.keys.find(header["kid"])
            if key is None:
                raise Unauthenticated()
            said = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
            expires = self._check_times(said)
            claim = Claim.model_validate(said[self._claim])
            label = claim.label or said["sub"]
        except (jwt.PyJWTError, ValidationError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise Unauthenticated() from None
        if LABEL.fullmatch(label) is None or label in RESERVED_LABELS:
            raise Unauthenticated()
        caller = Caller(label, claim.scope(), f"token:{label}", claim.label or SHOWN)
        self._keep(digest(token), caller, expires)
        return caller

    def _check_times(self, said: dict[str, Any]) -> float:
        """When a token expires. Raises `Unauthenticated` if that has passed, or if its time has not come."""
        now = self._clock().timestamp()
        expires, *begins = (_seconds(said[name]) for name in ("exp", "nbf", "iat") if name in said)
        if now >= expires + LEEWAY_SECONDS or any(now < begin - LEEWAY_SECONDS for begin in begins):
            raise Unauthenticated()
        return expires

    def _keep(self, hashed: bytes, caller: Caller, expires: float) -> None:
        self._known[hashed] = (caller, expires)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _forget(self) -> None:
        self._known.clear()


def _seconds(said: Any) -> float:
    if type(said) not in (int, float) or not math.isfinite(said):
        raise Unauthenticated()
    return float(said)
