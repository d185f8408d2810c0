"""What callers saw of one ledger: every attempt and every read with its moments, the log, and the stored keys.

The moments (`sent`, `ended`) are those of a clock that never falls. The instants that the ledger judges, such as
expiries, are those of the wall clock that the processes of the service have as well (`sent_at`, `ended_at`).
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import inf
from typing import Any

from tests.model import Answer, Body

REUSED = "idempotency_key_reused"
# Rejections that leave the key free: the same request may succeed later.
UNSTORED = {"account_not_found", "transaction_not_found"}
WITHOUT_EFFECT = {"overloaded", "storage_unavailable"}
IN_DOUBT = {"outcome_unknown"}


class Outcome(StrEnum):
    ANSWERED = "answered"
    # Nobody can have read the whole request: the connection was refused, or half of it was sent.
    UNSENT = "unsent"
    # The caller went away, or the connection was lost: it may have had its effect, or may yet.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Request:
    """A write to the ledger. `about` is the account or the transaction in its path."""

    operation: str
    key: str
    body: Body
    about: str | int = ""

    @property
    def asked(self) -> tuple[Any, ...]:
        """Equal for two requests that ask for the same."""
        return self.operation, self.about, json.dumps(self.body, sort_keys=True)


@dataclass(frozen=True)
class Attempt:
    """One time that a request was sent, and what came of it."""

    request: Request
    sent: float
    sent_at: datetime
    ended: float
    ended_at: datetime
    outcome: Outcome
    answer: Answer | None = None

    @property
    def code(self) -> str:
        return self.answer.body.get("code", "") if self.answer else ""

    @property
    def is_decided(self) -> bool:
        """Whether the answer says what the key stands for."""
        return self.answer is not None and self.answer.status < 500 and self.code not in {REUSED, *UNSTORED}

    @property
    def is_in_doubt(self) -> bool:
        return self.outcome == Outcome.UNKNOWN or self.code in IN_DOUBT

    def __str__(self) -> str:
        told = f"{self.answer.status} {self.code} {self.answer.body}" if self.answer else self.outcome
        return f"{self.request.operation} {self.request.about} with key {self.request.key}: {told}"


@dataclass(frozen=True)
class Read:
    """An answered read: what was asked for, and the sequence that the answer names."""

    kind: str
    about: str | int
    sent: float
    sent_at: datetime
    ended: float
    answer: Answer
    sequence: int | None = None


@dataclass(frozen=True)
class Stored:
    """The row of an idempotency key; of a batch of transactions with how many events were its effect."""

    sequence: int
    rejection: Body | None = None
    events: int | None = None

    @property
    def count(self) -> int:
        """How many events the key stands for."""
        if self.rejection is not None:
            return 0
        return 1 if self.events is None else self.events


@dataclass
class History:
    """Everything that is known of one ledger. `created` is the request that created it, answered before the rest."""

    ledger: str
    created: Body
    attempts: list[Attempt] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    log: list[Body] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)


@dataclass
class Decision:
    """What became of a key: the requests that it may stand for, the answer if anyone was told, and its window."""

    key: str
    requests: list[Request]
    answer: Answer | None
    stored: Stored
    sent: float
    sent_at: datetime
    answered: float = inf
    answered_at: datetime | None = None

    @property
    def first(self) -> int:
        return self.stored.sequence

    @property
    def last(self) -> int:
        """The length that the log had come to by the time this was decided and recorded."""
        return self.stored.sequence + max(self.stored.count - 1, 0)


@dataclass
class Claim:
    """A rejection, or an answer to a read, that some prefix of the log between two lengths has to explain."""

    said: str
    request: Request | None
    read: Read | None
    answer: Answer
    lowest: int
    highest: int
    sent_at: datetime
    answered_at: datetime | None


def in_texts(rejection: Body) -> Body:
    """The code and the fields of a rejection, as a row has them or as an answer has: amounts as digits."""
    return {
        name: in_texts(value) if isinstance(value, dict) else str(value)
        for name, value in rejection.items()
        if name != "status"
    }
