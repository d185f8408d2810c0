# Generated from openapi.yaml by scripts/generate. Do not edit: change the contract and generate again.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import MISSING, AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictStr, StringConstraints

from app.wire import (
    Amount,
    Balance,
    Counter,
    NullableBalance,
    NullableTotal,
    PostingNumber,
    SeenRevision,
    SeenVersion,
    Timestamp,
    Total,
)

type LedgerName = Annotated[
    StrictStr, Field(examples=["main"], max_length=64, min_length=1, pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
]
"""
Compared bytewise.
"""


type AccountPath = Annotated[
    StrictStr,
    Field(
        examples=["users:42:wallet"],
        max_length=255,
        min_length=1,
        pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)*$",
    ),
]
"""
Segments joined by colons, compared bytewise, such as `users:42:wallet`.
"""


type Asset = Annotated[
    StrictStr,
    Field(examples=["USD/2"], max_length=35, min_length=3, pattern="^[A-Z][A-Z0-9_.-]{0,31}/([0-9]|[12][0-9]|3[0-8])$"),
]
"""
A code and its scale, the number of decimal places of its smallest unit, such as `USD/2`.
"""


type EventSequence = Annotated[int, Field(examples=[4], ge=1, le=9007199254740991)]
"""
The number of an event in its ledger's log.
"""


type PastSequence = Annotated[int, Field(examples=[4], ge=0, le=9007199254740991)]
"""
The number of an event in its ledger's log, or 0 before the first one.
"""


type IdempotencyKey = Annotated[
    StrictStr, Field(examples=["deposit-1001"], max_length=255, min_length=1, pattern="^[!-~]+$")
]


type Reference = Annotated[
    StrictStr, Field(examples=["deposit-1001"], max_length=255, min_length=1, pattern="^[!-~]+$")
]
"""
The client's own name of a transaction, unique in its ledger.
"""


type Group = Annotated[StrictStr, Field(examples=["order-77"], max_length=255, min_length=1, pattern="^[!-~]+$")]
"""
The client's label for what belongs together, such as an order.
"""


type Description = Annotated[
    StrictStr, Field(examples=["Card deposit"], max_length=1000, pattern="^[^\\u0000-\\u0008\\u000B-\\u001F\\u007F]*$")
]
"""
Free text for people, without control characters other than tab and line feed.
"""


type Reason = Annotated[
    StrictStr,
    Field(
        examples=["September was reconciled with the bank"],
        max_length=1000,
        min_length=1,
        pattern="^[^\\u0000-\\u0008\\u000B-\\u001F\\u007F]*$",
    ),
]
"""
Why, for whoever audits the books; free text as a description is, but not empty.
"""


type MetadataAdditionalProperty = Annotated[
    StrictStr, Field(max_length=500, pattern="^[^\\u0000-\\u0008\\u000B-\\u001F\\u007F]*$")
]


type Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$", strict=True)], MetadataAdditionalProperty
    ],
    Field(examples=[{"customer": "42"}], max_length=50),
]
"""
Up to 50 pairs of the client's own, each a name and a string.
"""


type Side = Literal["debit", "credit"]


type Order = Literal["newest", "oldest"]


type AccountStatus = Literal["open", "frozen", "closed"]
"""
Open unless said otherwise. Only an open account takes postings; a closed one has a posted balance of zero
and nothing pending.

"""


type Sort = Literal["recorded", "effective"]


type Remainder = Literal["release", "keep"]
"""
What becomes of that part of a hold which a capture does not take; released unless said otherwise.
"""


class Health(BaseModel):
    status: StrictStr
    """
    Always `ok`; trouble is answered as a problem.
    """


class Readiness(BaseModel):
    status: StrictStr
    """
    Always `ok`; trouble is answered as a problem.
    """
    warnings: Annotated[list[StrictStr], Field(max_length=100)]
    """
    What an operator should know, though it does not keep the service from working. `fsync_off` and
    `synchronous_commit_off`, where the setting `ALLOW_UNSAFE_DATABASE` admits them: what was confirmed may be
    lost in a power cut. `role_unrestricted`: the role that the service works as could itself switch off what
    keeps the log as it is, as where the same one runs the migrations. More may come.

    """


type Metrics = StrictStr
"""
Lines in the text format of Prometheus, version 0.0.4.
"""


class CreateLedgerRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    name: LedgerName
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class UpdateLedgerRequest(BaseModel):
    """
    A ledger's whole configuration; what is left out is none afterwards.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    revision: SeenRevision
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class LedgerConfiguration(BaseModel):
    """
    A ledger's configuration as one event of its log recorded it.
    """

    name: LedgerName
    description: StrictStr | None
    metadata: Metadata
    revision: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    Counts the configurations, from 1.
    """
    sequence: EventSequence
    recorded_at: Timestamp


class Ledger(BaseModel):
    """
    A ledger's configuration in force, and how far its log has come.
    """

    name: LedgerName
    description: StrictStr | None
    metadata: Metadata
    revision: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    Counts the configurations, from 1.
    """
    closed_before: Timestamp | None
    """
    The instant that the books are closed before, or null.
    """
    sequence: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    The last event of the log.
    """
    recorded_at: Timestamp


class LedgerPage(BaseModel):
    items: Annotated[list[Ledger], Field(max_length=1000)]
    next_cursor: StrictStr | None


class CreateAccountRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    path: AccountPath
    asset: Asset
    normal_side: Side
    minimum_balance: Balance | MISSING = MISSING
    maximum_balance: Balance | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class UpdateAccountRequest(BaseModel):
    """
    An account's whole configuration; what is left out is none afterwards.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    revision: SeenRevision
    status: AccountStatus | MISSING = MISSING
    minimum_balance: Balance | MISSING = MISSING
    maximum_balance: Balance | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class AccountConfiguration(BaseModel):
    """
    An account's configuration as one event of the log recorded it.
    """

    path: AccountPath
    asset: Asset
    normal_side: Side
    status: StrictStr
    """
    `open`, `frozen` or `closed`; more may follow.
    """
    minimum_balance: NullableBalance | None
    """
    A balance below which `available` must not fall, or null.
    """
    maximum_balance: NullableBalance | None
    """
    A balance above which posted plus pending-in must not rise, or null.
    """
    description: StrictStr | None
    metadata: Metadata
    revision: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    Counts the configurations, from 1.
    """
    sequence: EventSequence
    recorded_at: Timestamp


class Account(BaseModel):
    """
    An account's configuration in force and its balances, at one point of the log.
    """

    path: AccountPath
    asset: Asset
    normal_side: Side
    status: StrictStr
    """
    `open`, `frozen` or `closed`; more may follow.
    """
    minimum_balance: NullableBalance | None
    """
    A balance below which `available` must not fall, or null.
    """
    maximum_balance: NullableBalance | None
    """
    A balance above which posted plus pending-in must not rise, or null.
    """
    description: StrictStr | None
    metadata: Metadata
    revision: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    Counts the configurations, from 1.
    """
    version: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    Counts the account's entries.
    """
    debits_posted: Counter
    credits_posted: Counter
    debits_pending: Counter
    credits_pending: Counter
    posted: Balance
    available: Total
    sequence: EventSequence


class AccountPage(BaseModel):
    items: Annotated[list[Account], Field(max_length=1000)]
    next_cursor: StrictStr | None
    sequence: EventSequence


class AccountEntry(BaseModel):
    """
    One line of an account's statement.
    """

    version: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    The number of the entry in its account. Holds and what releases them make entries too, which post nothing
    and are on no statement, so there may be gaps.

    """
    sequence: EventSequence
    side: Side
    amount: Amount
    balance: Balance
    effective_at: Timestamp
    recorded_at: Timestamp
    late: StrictBool
    """
    Whether the account already had an entry on its statement with a later effective time. A hold never makes an
    entry late; a capture does with its own effective time.

    """
    reference: StrictStr | None
    group: StrictStr | None
    description: StrictStr | None


class AccountEntryPage(BaseModel):
    items: Annotated[list[AccountEntry], Field(max_length=1000)]
    next_cursor: StrictStr | None
    sequence: EventSequence


class AccountBalance(BaseModel):
    """
    An account's posted balance at one effective time, as known at one point of the log.
    """

    account: AccountPath
    asset: Asset
    normal_side: Side
    posted: Total
    as_of_effective: AwareDatetime | None
    """
    The effective time that was asked for, or null.
    """
    sequence: PastSequence


class AssetTotals(BaseModel):
    """
    Sums over accounts of one asset. Of the past only `posted` is known, and the counters are null.
    """

    asset: Asset
    accounts: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    How many accounts were summed.
    """
    posted: Total
    debits_posted: NullableTotal | None
    credits_posted: NullableTotal | None
    debits_pending: NullableTotal | None
    credits_pending: NullableTotal | None


class AssetTotalsPage(BaseModel):
    items: Annotated[list[AssetTotals], Field(max_length=1000)]
    next_cursor: StrictStr | None
    as_of_effective: AwareDatetime | None
    """
    The effective time that was asked for, or null.
    """
    sequence: PastSequence


class TrialBalance(BaseModel):
    """
    What stands on the two sides of the ledger in one asset; the sums agree.
    """

    asset: Asset
    debit_balances: Total
    credit_balances: Total


class TrialBalancePage(BaseModel):
    items: Annotated[list[TrialBalance], Field(max_length=1000)]
    next_cursor: StrictStr | None
    as_of_effective: AwareDatetime | None
    """
    The effective time that was asked for, or null.
    """
    sequence: PastSequence


class PostingRequest(BaseModel):
    """
    Moves an amount between two different accounts of one asset.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    debit_account: AccountPath
    credit_account: AccountPath
    amount: Amount
    expected_debit_version: SeenVersion | MISSING = MISSING
    expected_credit_version: SeenVersion | MISSING = MISSING


class PostTransactionRequest(BaseModel):
    """
    A transaction, or with `pending` a hold. Only a hold takes an `expires_at`, which lies after the service's
    clock; without one it lasts until somebody ends it.

    """

    model_config = ConfigDict(
        extra="forbid",
    )
    postings: Annotated[list[PostingRequest], Field(max_length=500, min_length=1)]
    pending: StrictBool = False
    """
    Whether it is a hold.
    """
    expires_at: Timestamp | MISSING = MISSING
    effective_at: Timestamp | MISSING = MISSING
    reference: Reference | MISSING = MISSING
    group: Group | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class CaptureAmount(BaseModel):
    """
    How much of one posting of the hold is captured.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    posting: PostingNumber
    amount: Amount


class CaptureTransactionRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    amounts: Annotated[list[CaptureAmount] | MISSING, Field(max_length=500, min_length=1)] = MISSING
    """
    What is captured of which postings, each named at most once; the others are not captured, and are released
    or kept as `remainder` says. All that remains of every posting is captured if this is left out.

    """
    remainder: Remainder | MISSING = MISSING
    effective_at: Timestamp | MISSING = MISSING
    reference: Reference | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class VoidTransactionRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    reference: Reference | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class ReverseTransactionRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    effective_at: Timestamp | MISSING = MISSING
    reference: Reference | MISSING = MISSING
    description: Description | MISSING = MISSING
    metadata: Metadata | MISSING = MISSING


class PostTransactionBatchRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    transactions: Annotated[list[PostTransactionRequest], Field(max_length=1000, min_length=1)]
    atomic: StrictBool = True
    """
    Whether all take effect or none.
    """


class Posting(BaseModel):
    """
    What one posting did. `amount` is what it posted or, of a hold, what it holds; it is zero where something
    was only released, as by a void or an expiry. `released` is what it gave back of a hold without posting it,
    zero everywhere else.

    """

    debit_account: AccountPath
    credit_account: AccountPath
    asset: Asset
    amount: Counter
    released: Counter
    hold_posting: Annotated[int | None, Field(ge=0, le=499)]
    """
    Which posting of the hold it captures or releases, from 0; null where there is no `hold`.
    """
    debit_version: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    The number of the entry that this posting made in the debited account.
    """
    credit_version: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    The number of the entry that this posting made in the credited account.
    """


class Transaction(BaseModel):
    """
    A transaction as the log recorded it. Its `kind` is one of `transaction_posted`, `transaction_held`,
    `transaction_captured`, `transaction_voided`, `transaction_expired` and `transaction_reversed` (which is the
    reversal, not what it reverses); more may follow.

    """

    sequence: EventSequence
    kind: StrictStr
    """
    The kind of the event, such as `transaction_posted`.
    """
    recorded_at: Timestamp
    effective_at: Timestamp
    expires_at: Timestamp | None
    """
    Of a hold, when it ends by itself; null if it does not.
    """
    actor: StrictStr
    """
    The label of the key that asked; `system` for an expiry.
    """
    hold: Annotated[int | None, Field(ge=1, le=9007199254740991)]
    """
    The sequence of the hold that it captures, voids or expires; null for any other kind.
    """
    reverses: Annotated[int | None, Field(ge=1, le=9007199254740991)]
    """
    The sequence of the transaction that it reverses; null for any other kind.
    """
    postings: Annotated[list[Posting], Field(max_length=500)]
    reference: StrictStr | None
    group: StrictStr | None
    description: StrictStr | None
    metadata: Metadata


class HoldLine(BaseModel):
    """
    What has become of one posting of a hold. What is neither captured nor released is still held.
    """

    posting: PostingNumber
    held: Amount
    captured: Counter
    released: Counter


class TransactionPage(BaseModel):
    items: Annotated[list[Transaction], Field(max_length=1000)]
    next_cursor: StrictStr | None
    sequence: EventSequence


class ClosePeriodRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    before: Timestamp
    reason: Reason


class ReopenPeriodRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    before: Timestamp | MISSING = MISSING
    reason: Reason


class Period(BaseModel):
    """
    Up to where the books were closed from one event of the log on, by whom, and why.
    """

    closed_before: Timestamp | None
    """
    No transaction with an earlier effective time is accepted; null if the books are open.
    """
    reason: StrictStr
    actor: StrictStr
    """
    The label of the key that asked.
    """
    sequence: EventSequence
    recorded_at: Timestamp


class Event(BaseModel):
    """
    One event of the log. Its `kind` tells which of `ledger`, `account`, `transaction` and `period` says what
    happened:
    `ledger_created` and `ledger_changed` have `ledger`, `account_opened` and `account_changed` have `account`,
    every kind that begins with `transaction_` has `transaction`, `period_closed` and `period_reopened` have
    `period`.
    More kinds may follow.

    """

    sequence: EventSequence
    kind: StrictStr
    recorded_at: Timestamp
    actor: StrictStr
    """
    The label of the key that asked; `system` for an expiry.
    """
    ledger: LedgerConfiguration | MISSING = MISSING
    account: AccountConfiguration | MISSING = MISSING
    transaction: Transaction | MISSING = MISSING
    period: Period | MISSING = MISSING


class EventPage(BaseModel):
    items: Annotated[list[Event], Field(max_length=1000)]
    next_after_sequence: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    Pass it as `after_sequence` to read on.
    """
    sequence: EventSequence


class VerificationCheck(BaseModel):
    """
    One invariant, as far as it was verified.
    """

    name: StrictStr
    """
    The invariant's name; more may follow.
    """
    checked: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    How many events, postings, entries, accounts or guards were looked at.
    """
    offenders: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    How many of them break the invariant.
    """
    first_offender: StrictStr | None
    """
    The first of them, for people; null if there is none.
    """


class VerificationReport(BaseModel):
    """
    The invariants over a range of the log, recomputed from the rows.
    """

    ledger: LedgerName
    from_sequence: Annotated[int, Field(ge=1, le=9007199254740991)]
    """
    The first event of the range.
    """
    to_sequence: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    The last event of the range; one less than `from_sequence` if the range is empty.
    """
    checks: Annotated[list[VerificationCheck], Field(max_length=100)]
    next_after_sequence: Annotated[int, Field(ge=0, le=9007199254740991)]
    """
    Pass it as `after_sequence` to go on.
    """
    sequence: EventSequence


type ApiKeyName = Annotated[StrictStr, Field(max_length=64, min_length=1, pattern="^[A-Za-z0-9_.-]+$")]
"""
Names a key for ever: 1 to 64 letters, digits, dots, dashes and underscores.

"""


type ActorLabel = Annotated[StrictStr, Field(max_length=64, min_length=1, pattern="^[A-Za-z0-9_.-]+$")]
"""
Who acts, as the log tells it: 1 to 64 letters, digits, dots, dashes and underscores. Not `system`, which
stands for the ledger itself, and not `operator`.

"""


type ScopeOperation = Literal["read", "post", "hold", "admin"]


class CreateApiKeyRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
    )
    name: ApiKeyName
    label: ActorLabel | MISSING = MISSING
    operations: Annotated[list[ScopeOperation], Field(max_length=4, min_length=1)]
    """
    What the key may do; `x-scope` of each operation tells which of these it takes.
    """
    ledgers: Annotated[list[LedgerName] | MISSING, Field(max_length=100, min_length=1)] = MISSING
    """
    The ledgers that it may do it in, whether or not they exist yet; all of them if left out.
    """
    account_prefix: AccountPath | MISSING = MISSING
    amount_max: Amount | MISSING = MISSING
    expires_at: Timestamp | MISSING = MISSING


class ApiKey(BaseModel):
    """
    A key, without its secret.
    """

    name: ApiKeyName
    label: StrictStr
    """
    The actor of what is done with it.
    """
    operations: Annotated[list[StrictStr], Field(max_length=100)]
    """
    What it may do.
    """
    ledgers: Annotated[list[LedgerName] | None, Field(max_length=100)]
    """
    The ledgers that it may do it in; null for all of them.
    """
    account_prefix: StrictStr | None
    """
    It may name or move only this account and those below it; null for all of them.
    """
    amount_max: NullableBalance | None
    """
    The largest amount of a posting that it may make; null for no bound.
    """
    created_at: Timestamp
    created_by: StrictStr
    """
    The label of the key that made it.
    """
    expires_at: Timestamp | None
    """
    From when on nobody can use it, if it expires.
    """
    revoked_at: Timestamp | None
    """
    When it was revoked, if it was.
    """
    revoked_by: StrictStr | None
    """
    The label of the key that revoked it.
    """


class CreatedApiKey(BaseModel):
    """
    A key as it was made, and its secret, which is not shown again.
    """

    api_key: ApiKey
    secret: Annotated[StrictStr, Field(pattern="^tsk_[0-9A-Za-z]{38}$")]
    """
    Send it as the bearer token. Nobody can be told it again.
    """


class ApiKeyPage(BaseModel):
    items: Annotated[list[ApiKey], Field(max_length=1000)]
    next_cursor: StrictStr | None
    """
    For the next page; null on the last one.
    """


class FieldError(BaseModel):
    pointer: StrictStr
    """
    Where: a JSON Pointer into the body such as `/postings/0/amount`, or the name of a parameter or header.

    """
    message: StrictStr


class ItemProblem(BaseModel):
    """
    Why one transaction of a batch was refused, as if it had been posted by itself.
    """

    type: StrictStr
    """
    Where the code is explained.
    """
    title: StrictStr
    status: Annotated[int, Field(ge=400, le=599)]
    code: StrictStr
    """
    Stable; what a program should look at.
    """
    detail: StrictStr
    pointer: StrictStr | MISSING = MISSING
    """
    The place in the transaction that the refusal is about, as a JSON Pointer into it.
    """
    account: StrictStr | MISSING = MISSING
    """
    The path of the account that the refusal is about.
    """
    available: StrictStr | MISSING = MISSING
    """
    What the account has available, the room it has left, or what the posting still holds.
    """
    required: StrictStr | MISSING = MISSING
    """
    What the transaction would take from it, or add to it, or capture.
    """


type AfterSequenceParameter = Annotated[int, Field(ge=0, le=9007199254740991)]


type LimitParameter = Annotated[int, Field(ge=1, le=1000)]


type WaitSecondsParameter = Annotated[int, Field(ge=0, le=25)]


type VerificationLimitParameter = Annotated[int, Field(ge=1, le=10000)]


type CursorParameter = Annotated[StrictStr, Field(max_length=1024, min_length=1, pattern="^[A-Za-z0-9_-]+$")]


type MalformedRequestResponseXRequestIdHeader = Annotated[StrictStr, Field(pattern="^[A-Za-z0-9._-]{1,64}$")]


type MalformedRequestResponseCacheControlHeader = Annotated[StrictStr, Field(pattern="^no-store$")]


type MalformedRequestResponsetraceparentHeader = Annotated[
    StrictStr, Field(pattern="^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
]


type UnauthenticatedResponseWWWAuthenticateHeader = StrictStr


type RateLimitedResponseRetryAfterHeader = Annotated[int, Field(ge=1, le=3600)]


type CacheControlPastHeader = Annotated[
    StrictStr, Field(pattern="^(no-store|private, max-age=[1-9][0-9]{0,7}, immutable)$")
]


type ContentEncodingHeader = Literal["gzip"]


type VaryHeader = StrictStr


type LocationHeader = Annotated[StrictStr, Field(pattern="^/v1/[A-Za-z0-9_.:/-]+$")]


type IdempotencyReplayedHeader = Literal["true"]


class TransactionResult(BaseModel):
    """
    Either `transaction`, as it was recorded, or `problem`, why it was refused.
    """

    transaction: Transaction | MISSING = MISSING
    problem: ItemProblem | MISSING = MISSING


class TransactionBatch(BaseModel):
    results: Annotated[list[TransactionResult], Field(max_length=1000)]


class TransactionState(BaseModel):
    """
    A transaction as the log recorded it, and what has become of it by `as_of_sequence`.
    """

    sequence: EventSequence
    kind: StrictStr
    """
    The kind of the event, such as `transaction_posted`.
    """
    recorded_at: Timestamp
    effective_at: Timestamp
    expires_at: Timestamp | None
    """
    Of a hold, when it ends by itself; null if it does not.
    """
    actor: StrictStr
    """
    The label of the key that asked; `system` for an expiry.
    """
    hold: Annotated[int | None, Field(ge=1, le=9007199254740991)]
    """
    The sequence of the hold that it captures, voids or expires; null for any other kind.
    """
    reverses: Annotated[int | None, Field(ge=1, le=9007199254740991)]
    """
    The sequence of the transaction that it reverses; null for any other kind.
    """
    postings: Annotated[list[Posting], Field(max_length=500)]
    reference: StrictStr | None
    group: StrictStr | None
    description: StrictStr | None
    metadata: Metadata
    hold_status: StrictStr | None
    """
    Of a hold: `pending` while something remains of it; else `captured`, `voided` or `expired` after the event
    that ended it, whatever was captured before; more may follow. Null for any other kind.

    """
    hold_lines: Annotated[list[HoldLine], Field(max_length=500)]
    """
    Of a hold, what has become of each of its postings; empty for any other kind.
    """
    reversed_by: Annotated[int | None, Field(ge=1, le=9007199254740991)]
    """
    The sequence of the transaction that reversed it; null if none did.
    """
    as_of_sequence: EventSequence


class HoldPage(BaseModel):
    items: Annotated[list[TransactionState], Field(max_length=1000)]
    next_cursor: StrictStr | None
    sequence: EventSequence


class ProblemDetails(BaseModel):
    """
    A refusal, after RFC 9457.
    """

    type: StrictStr
    """
    Where the code is explained.
    """
    title: StrictStr
    status: Annotated[int, Field(ge=400, le=599)]
    code: StrictStr
    """
    Stable; what a program should look at.
    """
    detail: StrictStr
    request_id: StrictStr
    pointer: StrictStr | MISSING = MISSING
    """
    The place in the body that the refusal is about, as a JSON Pointer.
    """
    account: StrictStr | MISSING = MISSING
    """
    The path of the account that the refusal is about.
    """
    available: StrictStr | MISSING = MISSING
    """
    What the account has available, the room it has left, or what the posting still holds.
    """
    required: StrictStr | MISSING = MISSING
    """
    What the transaction would take from it, or add to it, or capture.
    """
    errors: Annotated[list[FieldError] | MISSING, Field(max_length=100)] = MISSING
    index: Annotated[int | MISSING, Field(ge=0, le=999)] = MISSING
    """
    Which transaction of a batch was refused, from 0.
    """
    problem: ItemProblem | MISSING = MISSING
    reason: StrictStr | MISSING = MISSING
    """
    Why the process is not ready.
    """
