"""Every refusal, as a tree: a class, a code, and fields. What status a code has is the edge's affair.

    Refusal
    ├── RequestRefused          the request is not one that the contract knows
    │   ├── MalformedRequest, IdempotencyKeyRequired, InvalidCursor, Unauthenticated
    │   ├── Forbidden, RateLimited
    │   ├── RouteNotFound, MethodNotAllowed, NotAcceptable, RequestTimeout
    │   └── ContentTooLarge, UnsupportedMediaType, ValidationFailed
    ├── NotFound                what it asks for is not there
    │   └── LedgerNotFound, AccountNotFound, TransactionNotFound, SequenceOutOfRange, ApiKeyNotFound
    ├── KeyRefused              its key was used for something else
    │   └── IdempotencyKeyReused, LedgerExists, ApiKeyExists
    ├── BooksRefuse             the rules refuse it; frozen with its key
    │   ├── AccountExists, RevisionConflict, LimitNotMet, AccountNotEmpty
    │   ├── TimeOutOfRange, ReferenceExists, UnknownAccount, AssetMismatch, AccountClosed, AccountFrozen
    │   ├── VersionConflict, PeriodClosed
    │   ├── NotPending, AlreadyCaptured, AlreadyVoided, HoldExpired, CaptureExceedsHold
    │   ├── NotReversible, AlreadyReversed
    │   ├── AmountOverflow, InsufficientFunds, MaximumExceeded
    │   └── BatchRefused
    └── ServiceFailed           the service could not answer
        └── Overloaded, StorageUnavailable, ClockSkewed, NotReady, OutcomeUnknown, InternalError

A docstring says what the code means and what a client should do; it is served as the code's page.
Fields hold only values that passed validation: paths of accounts, amounts, and pointers into the contract's own
properties. Nothing that the client invented is echoed.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar


class Refusal(Exception):
    code: ClassVar[str]
    title: ClassVar[str]
    # Whether it is a first answer given again.
    replayed = False
    # After how many seconds to try again, where that is known better than its status tells.
    retry_after_s: int | None = None

    def fields(self) -> dict[str, Any]:
        """The refusal's own fields, as a problem document shows them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


class RequestRefused(Refusal):
    """The request is not one that the contract knows."""


@dataclass(eq=False)
class MalformedRequest(RequestRefused):
    """The bytes of the request are wrong: the body is not strict JSON in UTF-8 (no byte order mark, no duplicate
    names, no NaN or Infinity, no lone surrogates, bounded depth), a parameter or header that may stand once
    is repeated, or the request is not well-formed HTTP/1.1 or HTTP/1.0, with one valid Host. Fix the client; the same
    bytes are always rejected."""

    code = "malformed_request"
    title = "The request is malformed"
    pointer: str


@dataclass(eq=False)
class IdempotencyKeyRequired(RequestRefused):
    """A write to a ledger needs the header Idempotency-Key. Choose a key per intended effect, such as the
    identifier of the order, and repeat it with every retry."""

    code = "idempotency_key_required"
    title = "The Idempotency-Key header is missing"


@dataclass(eq=False)
class InvalidCursor(RequestRefused):
    """The cursor is not one that this list gave out, or stands beside a filter that contradicts it. Start again
    without a cursor."""

    code = "invalid_cursor"
    title = "The cursor is not one of this list"


@dataclass(eq=False)
class Unauthenticated(RequestRefused):
    """The request carries no API key that the service knows, or one that was revoked or has expired; or a token that
    is not valid. Send it as a bearer token in the Authorization header."""

    code = "unauthenticated"
    title = "The API key is missing or not known"


@dataclass(eq=False)
class Forbidden(RequestRefused):
    """The scope of the key does not cover the request: its operation, its ledger, an account, an amount or a
    reference; or the operation needs a key without an account prefix, or a filter within it. It is the same answer
    whether or not what was asked for exists. Use another key; the Idempotency-Key was not used up."""

    code = "forbidden"
    title = "The scope of the key does not cover the request"


@dataclass(eq=False)
class RateLimited(RequestRefused):
    """The key asks more often than it may, or too many requests without a valid key came from the address. Nothing was
    changed; try again after `Retry-After` seconds, with the same Idempotency-Key."""

    code = "rate_limited"
    title = "Too many requests"


@dataclass(eq=False)
class RouteNotFound(RequestRefused):
    """There is nothing at this path. Compare it with the contract at /openapi.yaml; paths have no trailing
    slash."""

    code = "route_not_found"
    title = "There is nothing at this path"


@dataclass(eq=False)
class MethodNotAllowed(RequestRefused):
    """The path exists, but not with this method. The Allow header names the methods that it has."""

    code = "method_not_allowed"
    title = "The path does not have this method"


@dataclass(eq=False)
class NotAcceptable(RequestRefused):
    """The Accept header rules out the media type that this operation answers: application/json, or text/plain for the
    metrics."""

    code = "not_acceptable"
    title = "The Accept header rules out what this operation answers"


@dataclass(eq=False)
class RequestTimeout(RequestRefused):
    """The body of the request did not arrive in time. Nothing was changed; try again with the same key."""

    code = "request_timeout"
    title = "The body did not arrive in time"


@dataclass(eq=False)
class ContentTooLarge(RequestRefused):
    """The body is longer than the contract allows. Split what it says into several requests."""

    code = "content_too_large"
    title = "The body is too long"


@dataclass(eq=False)
class UnsupportedMediaType(RequestRefused):
    """The body has to be application/json in UTF-8, without a content encoding."""

    code = "unsupported_media_type"
    title = "The body is not plain application/json"


@dataclass(eq=False)
class ValidationFailed(RequestRefused):
    """The request is not of the form that the contract gives. `errors` names each place and what is wrong there.
    Mend the client; the key was not used up."""

    code = "validation_failed"
    title = "The request is not of the contract's form"
    errors: list[dict[str, str]]


class NotFound(Refusal):
    """What the request asks for is not there."""


@dataclass(eq=False)
class LedgerNotFound(NotFound):
    """There is no ledger of this name. Create it first; names are compared bytewise."""

    code = "ledger_not_found"
    title = "There is no ledger of this name"


@dataclass(eq=False)
class AccountNotFound(NotFound):
    """There is no account of this path in the ledger. Paths are compared bytewise. The key of a write that meets
    this is not used up."""

    code = "account_not_found"
    title = "There is no account of this path"


@dataclass(eq=False)
class TransactionNotFound(NotFound):
    """The ledger has no transaction with this sequence. The sequence of another kind of event is not found
    here; the log shows every event."""

    code = "transaction_not_found"
    title = "There is no transaction with this sequence"


@dataclass(eq=False)
class SequenceOutOfRange(NotFound):
    """The log does not reach as far as the sequence asked for. A consumer of the feed that meets this has read
    more than the ledger now holds, as after a restored backup: compare before you go on."""

    code = "sequence_out_of_range"
    title = "The log does not reach that far"


@dataclass(eq=False)
class ApiKeyNotFound(NotFound):
    """There is no key of this name. Names are compared bytewise."""

    code = "api_key_not_found"
    title = "There is no key of this name"


class KeyRefused(Refusal):
    """The key of the request was used for something else."""


@dataclass(eq=False)
class IdempotencyKeyReused(KeyRefused):
    """The Idempotency-Key was used in this ledger for another request. Use a key of its own for each intended
    effect; nothing was changed."""

    code = "idempotency_key_reused"
    title = "The key was used for another request"


@dataclass(eq=False)
class LedgerExists(KeyRefused):
    """A ledger of this name was created with another body. Nothing was changed."""

    code = "ledger_exists"
    title = "A ledger of this name exists with another body"


@dataclass(eq=False)
class ApiKeyExists(KeyRefused):
    """A key of this name was made before; names are used once. Where the answer that showed its secret was lost,
    revoke that key, and make one of another name with the same label."""

    code = "api_key_exists"
    title = "A key of this name was made before"


class BooksRefuse(Refusal):
    """The rules refuse a command from the ledger's state. The refusal is frozen with its key."""


@dataclass(eq=False)
class AccountExists(BooksRefuse):
    """The ledger has an account of this path, opened by a request with another key."""

    code = "account_exists"
    title = "An account of this path exists"
    account: str


@dataclass(eq=False)
class LimitNotMet(BooksRefuse):
    """The account's balance lies outside the limits that were asked for; a new account has a balance of zero."""

    code = "limit_not_met"
    title = "The balance lies outside the limits"
    pointer: str


@dataclass(eq=False)
class RevisionConflict(BooksRefuse):
    """The configuration was changed since the revision that the request names. Read it again, see whether the
    change is still wanted, and send it with the new revision and a new key."""

    code = "revision_conflict"
    title = "The configuration was changed since that revision"
    pointer: str


@dataclass(eq=False)
class AccountNotEmpty(BooksRefuse):
    """An account closes only at a posted balance of zero with nothing pending. Move what is left, then use a new
    key."""

    code = "account_not_empty"
    title = "The account is not empty"
    account: str


@dataclass(eq=False)
class AccountClosed(BooksRefuse):
    """The account is closed: it takes no postings, and is opened before it can be frozen. Open it, then use a new
    key."""

    code = "account_closed"
    title = "The account is closed"
    account: str


@dataclass(eq=False)
class AccountFrozen(BooksRefuse):
    """The account is frozen: it takes no postings, and is opened before it can be closed. Open it, then use a new
    key."""

    code = "account_frozen"
    title = "The account is frozen"
    account: str


@dataclass(eq=False)
class TimeOutOfRange(BooksRefuse):
    """An effective time lies before the year 1900, or more than a minute ahead of the service's clock; or a hold is
    to expire at an instant that is not after that clock; or books are to be closed before an instant that lies in
    the future or is not after the one they are closed before; or reopened where that would not move this instant
    back. The refusal is frozen with its key: use a new key once the time has come."""

    code = "time_out_of_range"
    title = "The time is out of range"
    pointer: str


@dataclass(eq=False)
class PeriodClosed(BooksRefuse):
    """The books are closed before an instant that is later than the effective time. Give the transaction a later
    effective time, or reopen the books; then use a new key."""

    code = "period_closed"
    title = "The books are closed for that time"
    pointer: str


@dataclass(eq=False)
class NotPending(BooksRefuse):
    """The transaction is no hold, so there is nothing to capture or to void. What was posted at once is undone by a
    reversal."""

    code = "not_pending"
    title = "The transaction is no hold"


@dataclass(eq=False)
class AlreadyCaptured(BooksRefuse):
    """The hold has ended: a capture took it, and released what it left. Get the transaction to see how much was
    captured; post anew for more."""

    code = "already_captured"
    title = "The hold was captured"


@dataclass(eq=False)
class AlreadyVoided(BooksRefuse):
    """The hold has ended: what remained of it was released by a void. Post anew if it is wanted after all."""

    code = "already_voided"
    title = "The hold was voided"


@dataclass(eq=False)
class HoldExpired(BooksRefuse):
    """The hold has ended: its time came, and what remained of it was released. Post anew if it is wanted after
    all."""

    code = "hold_expired"
    title = "The hold has expired"


@dataclass(eq=False)
class CaptureExceedsHold(BooksRefuse):
    """More is to be captured of a posting than remains of it, which is `available`; a posting that the hold does not
    have holds nothing. Capture less, and post the difference by itself, with a new key."""

    code = "capture_exceeds_hold"
    title = "More is to be captured than is held"
    pointer: str
    available: int
    required: int


@dataclass(eq=False)
class NotReversible(BooksRefuse):
    """Only a posted transaction and a capture can be reversed. Void a hold instead; a reversal is followed by a
    transaction that posts anew."""

    code = "not_reversible"
    title = "The transaction is of a kind that cannot be reversed"


@dataclass(eq=False)
class AlreadyReversed(BooksRefuse):
    """The transaction was reversed before, as a whole. Get it to see by which one."""

    code = "already_reversed"
    title = "The transaction was reversed before"


@dataclass(eq=False)
class ReferenceExists(BooksRefuse):
    """Another transaction of the ledger has this reference."""

    code = "reference_exists"
    title = "A transaction with this reference exists"
    pointer: str


@dataclass(eq=False)
class UnknownAccount(BooksRefuse):
    """A posting names an account that the ledger does not have. Open it, then use a new key."""

    code = "unknown_account"
    title = "A posting names an unknown account"
    pointer: str


@dataclass(eq=False)
class AssetMismatch(BooksRefuse):
    """A posting moves an amount between accounts of different assets. An exchange takes two postings, each
    within its asset."""

    code = "asset_mismatch"
    title = "A posting joins two assets"
    pointer: str


@dataclass(eq=False)
class VersionConflict(BooksRefuse):
    """The account has another version than the one that the posting expects: it has had entries since the caller
    looked. Read it again, decide again, and post with a new key."""

    code = "version_conflict"
    title = "The account has moved on from that version"
    pointer: str


@dataclass(eq=False)
class AmountOverflow(BooksRefuse):
    """A counter of the account, posted and pending together, would grow longer than 38 digits."""

    code = "amount_overflow"
    title = "A counter of the account would overflow"
    account: str


@dataclass(eq=False)
class InsufficientFunds(BooksRefuse):
    """The account would fall below its minimum balance. `available` is what it has above its minimum, `required`
    what the whole transaction takes. After topping up, use a new key: this refusal is frozen with its own."""

    code = "insufficient_funds"
    title = "The account would fall below its minimum balance"
    account: str
    available: int
    required: int


@dataclass(eq=False)
class MaximumExceeded(BooksRefuse):
    """The account would rise above its maximum balance. `available` is the room it has left, `required` what the
    whole transaction adds."""

    code = "maximum_exceeded"
    title = "The account would rise above its maximum balance"
    account: str
    available: int
    required: int


@dataclass(eq=False)
class BatchRefused(BooksRefuse):
    """A transaction of an atomic batch was refused, and so the whole batch: `index` tells which one, from 0, and
    `problem` why, as if it had been posted by itself. Nothing was changed."""

    code = "batch_refused"
    title = "A transaction of the batch was refused"
    index: int
    problem: Refusal


class ServiceFailed(Refusal):
    """The service could not answer. Repeat the request with the same key."""


@dataclass(eq=False)
class Overloaded(ServiceFailed):
    """More waits than the service can take on. Nothing was changed; try again after `Retry-After` seconds, with
    the same key."""

    code = "overloaded"
    title = "The service is overloaded"


@dataclass(eq=False)
class StorageUnavailable(ServiceFailed):
    """The database cannot be reached. Nothing was changed; try again after `Retry-After` seconds, with the same
    key."""

    code = "storage_unavailable"
    title = "The database cannot be reached"


@dataclass(eq=False)
class ClockSkewed(ServiceFailed):
    """A write would be recorded at a wrong time: the clock of the process is too far from the database's, or the last
    event of the ledger was recorded more than a minute ahead of that clock. Nothing was changed; try again after
    `Retry-After` seconds, with the same key."""

    code = "clock_skewed"
    title = "The clock is too far off to record anything"


@dataclass(eq=False)
class NotReady(ServiceFailed):
    """The process should be sent no requests now, and `reason` says why. `stopping`: it was told to stop, and still
    answers what reaches it. `schema_behind`: the migrations of its version have not run. `grants_missing`: they have
    not granted its role what it needs (`SERVICE_ROLE`). `fsync_off`, `synchronous_commit_off`: Postgres may forget
    what it confirmed, so no ledger should be kept there. `writer_stalled`: a batch of writes has made no progress for
    longer than anyone waits for it. `clock_skewed`: its clock is too far from the database's, so it writes nothing."""

    code = "not_ready"
    title = "The process is not ready"
    reason: str


@dataclass(eq=False)
class OutcomeUnknown(ServiceFailed):
    """The service lost sight of the write: it may have taken effect, or may yet. Repeat the request with the
    same key, which answers what became of it, and takes effect once."""

    code = "outcome_unknown"
    title = "The outcome of the write is not known"


@dataclass(eq=False)
class InternalError(ServiceFailed):
    """A fault of the service. It is in the logs under `request_id`; a write with a key may be repeated safely."""

    code = "internal_error"
    title = "A fault of the service"


def _leaves(refusal: type[Refusal]) -> list[type[Refusal]]:
    below = refusal.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [refusal]


def freeze(refusal: Refusal) -> dict[str, Any]:
    """A refusal as plain values, which are stored with its key."""
    said = {name: freeze(value) if isinstance(value, Refusal) else value for name, value in refusal.fields().items()}
    return {"code": refusal.code, **said}


def thaw(frozen: dict[str, Any]) -> Refusal:
    """The refusal that `freeze` was given."""
    said = {name: thaw(value) if isinstance(value, dict) else value for name, value in frozen.items() if name != "code"}
    return REFUSALS[frozen["code"]](**said)


REFUSALS: dict[str, type[Refusal]] = {leaf.code: leaf for leaf in _leaves(Refusal)}
