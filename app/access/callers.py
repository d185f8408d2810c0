"""Who asks: a label for the log, and a scope."""

from dataclasses import dataclass

from app.ledger.scopes import EVERYTHING, OPERATOR, Scope

# Labels that no key and no token may have: they stand for the ledger itself, and for the operator.
RESERVED_LABELS = frozenset({"system", OPERATOR})


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose key was found good. `identity` is what a limit of requests is counted by.

    `shown` is what metrics call them: only what an operator or the issuer chose as a label, never a token's subject,
    who may be a person.
    """

    label: str
    scope: Scope
    identity: str
    shown: str


def operator(label: str = OPERATOR) -> Caller:
    """The bearer of a key of the settings, who may do everything."""
    return Caller(label, EVERYTHING, f"settings:{label}", label)
