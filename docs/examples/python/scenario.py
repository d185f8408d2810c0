"""A wallet in ten steps, with the client that openapi-python-client made of the contract in `tallystick/`."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from tallystick import AuthenticatedClient
from tallystick.api.accounts import create_account, get_account, list_account_entries
from tallystick.api.events import list_events
from tallystick.api.ledgers import create_ledger
from tallystick.api.transactions import capture_transaction, post_transaction
from tallystick.models import (
    CaptureAmount,
    CaptureTransactionRequest,
    CreateAccountRequest,
    CreateLedgerRequest,
    Order,
    PostingRequest,
    PostTransactionRequest,
    ProblemDetails,
    Side,
    Transaction,
)
from tallystick.types import UNSET, Response, Unset

LEDGER = os.environ.get("TALLYSTICK_LEDGER", "scenario")
TRIES_MAX = 5

client = AuthenticatedClient(
    base_url=os.environ.get("TALLYSTICK_URL", "http://127.0.0.1:8000"),
    token=os.environ["TALLYSTICK_KEY"],
    timeout=httpx.Timeout(30),  # longer than the feed may wait
)


# step: refusals and retries
class Refused(Exception):
    """The service said no; a program looks at `problem.code`."""

    def __init__(self, problem: ProblemDetails) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def send[T](call: Callable[[], Response[T | ProblemDetails]]) -> Response[T | ProblemDetails]:
    """Try again after 429 and 503. `call` carries its key with it, so that it takes effect once, even if the
    service could not say whether it had (`outcome_unknown`)."""
    for _ in range(TRIES_MAX - 1):
        response = call()
        if response.status_code not in (429, 503):
            return response
        time.sleep(int(response.headers.get("Retry-After", "1")))
    return call()


def body_of[T](response: Response[T | ProblemDetails]) -> T:
    if isinstance(response.parsed, ProblemDetails):
        raise Refused(response.parsed)
    if response.parsed is None:
        raise RuntimeError(f"Not in the contract: {response.status_code}")
    return response.parsed


def post(
    key: str, debit: str, credit: str, amount: int, *, pending: bool = False
) -> Response[Transaction | ProblemDetails]:
    """Amounts are strings on the wire and whole numbers here; a float never touches them."""
    posting = PostingRequest(debit_account=debit, credit_account=credit, amount=str(amount))
    body = PostTransactionRequest(postings=[posting], pending=pending)
    return send(lambda: post_transaction.sync_detailed(LEDGER, client=client, body=body, idempotency_key=key))


def available(account: str) -> int:
    return int(body_of(send(lambda: get_account.sync_detailed(LEDGER, account, client=client))).available)


# step: open accounts
ACCOUNTS = [
    CreateAccountRequest(path="bank:cash", asset="USD/2", normal_side=Side.DEBIT),
    CreateAccountRequest(path="users:42:wallet", asset="USD/2", normal_side=Side.CREDIT, minimum_balance="0"),
    CreateAccountRequest(path="shop:sales", asset="USD/2", normal_side=Side.CREDIT),
    CreateAccountRequest(path="chain:vault", asset="ETH/18", normal_side=Side.DEBIT),
    CreateAccountRequest(path="users:42:eth", asset="ETH/18", normal_side=Side.CREDIT),
]
body_of(create_ledger.sync_detailed(client=client, body=CreateLedgerRequest(name=LEDGER)))
for account in ACCOUNTS:
    opened = body_of(
        create_account.sync_detailed(LEDGER, client=client, body=account, idempotency_key=f"open-{account.path}")
    )
    print(f"open accounts: {opened.path} in {opened.asset} at {opened.sequence}")

# step: post
deposit = post("deposit-1001", "bank:cash", "users:42:wallet", 1250)
print(f"post: 1250 at {body_of(deposit).sequence}, available {available('users:42:wallet')}")

# step: replay
again = post("deposit-1001", "bank:cash", "users:42:wallet", 1250)
replayed = again.headers.get("Idempotency-Replayed") == "true"
print(f"replay: {'the first answer' if replayed else 'a new one'}, at {body_of(again).sequence}")

# step: hold
hold = body_of(post("order-78", "users:42:wallet", "shop:sales", 700, pending=True))
print(f"hold: {hold.postings[0].amount} at {hold.sequence}, available {available('users:42:wallet')}")

# step: capture
part = CaptureTransactionRequest(amounts=[CaptureAmount(posting=0, amount="400")])
captured = body_of(
    send(
        lambda: capture_transaction.sync_detailed(
            LEDGER, hold.sequence, client=client, body=part, idempotency_key="ship-78"
        )
    )
)
(line,) = captured.postings
print(
    f"capture: {line.amount} at {captured.sequence}, released {line.released}, available {available('users:42:wallet')}"
)

# step: refuse
try:
    body_of(post("payout-7", "users:42:wallet", "bank:cash", 5000))
except Refused as refused:
    problem = refused.problem
    print(f"refuse: {problem.status} {problem.code}, available {problem.available}, required {problem.required}")

# step: large amount
wei = 2**53 + 1
body_of(post("wei-1", "chain:vault", "users:42:eth", wei))
print(f"large amount: {wei} held, one more would be {available('users:42:eth') + 1}")

# step: retry
sale = body_of(post("sale-1002", "users:42:wallet", "shop:sales", 50))
print(f"retry: posted once, at {sale.sequence}, available {available('users:42:wallet')}")

# step: statement
cursor: str | Unset = UNSET
while True:
    page = body_of(
        list_account_entries.sync_detailed(
            LEDGER, "users:42:wallet", client=client, order=Order.OLDEST, limit=2, cursor=cursor
        )
    )
    print("statement:", ", ".join(f"{entry.side} {entry.amount} makes {entry.balance}" for entry in page.items))
    if page.next_cursor is None:
        break
    cursor = page.next_cursor

# step: feed
after = 0
while True:
    events = body_of(list_events.sync_detailed(LEDGER, client=client, after_sequence=after, limit=4))
    for event in events.items:
        if event.sequence != after + 1:
            raise RuntimeError(f"The feed went from {after} to {event.sequence}")
        after = event.sequence
    print(f"feed: read to {after} without a gap")
    if events.next_after_sequence == events.sequence:
        break

# step: long poll
with ThreadPoolExecutor() as pool:
    news = pool.submit(list_events.sync_detailed, LEDGER, client=client, after_sequence=after, wait_seconds=20)
    body_of(post("sale-1003", "users:42:wallet", "shop:sales", 25))
    for event in body_of(news.result()).items:
        print(f"long poll: {event.kind} at {event.sequence}")
