"""Keys that the operator makes: their secrets, how they end, and that a scope holds whatever a request says."""

import hashlib
import json
import re
import string
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.access import make_key, make_named_key
from tests.books import fetch_now, new_key, open_account, post, transaction
from tests.conformance import check_answer
from tests.conftest import KEY, ROOT, SECOND_KEY, Processes, Service, serve, wait_until
from tests.test_refusals import holding

# Accounts of two customers, and one of nobody's.
MINE, OTHER_OF_MINE, YOURS, HOUSE = "users:1:wallet", "users:1", "users:10:wallet", "bank"


@dataclass
class Books:
    service: Service
    name: str
    operator: httpx.Client

    def client(self, *operations: str, **scope: Any) -> httpx.Client:
        """With a new key for this ledger."""
        return self.service.client(make_key(self.operator, *operations, **({"ledgers": [self.name]} | scope)))

    def path(self, rest: str = "") -> str:
        return f"/v1/ledgers/{self.name}{rest}"

    def post(self, debit: str, credit: str, amount: int = 1, **changes: Any) -> int:
        answer = post(self.operator, self.name, transaction(debit, credit, amount, **changes))
        assert answer.status_code == 201, answer.text
        return answer.json()["sequence"]


@pytest.fixture
def books(service: Service, client: httpx.Client, ledger: str) -> Books:
    for path in (MINE, OTHER_OF_MINE, YOURS, HOUSE):
        open_account(client, ledger, path)
    return Books(service, ledger, client)


@pytest.fixture
def mine(books: Books) -> Iterator[httpx.Client]:
    """Whoever looks after one customer."""
    with books.client(account_prefix="users:1") as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


FORBIDDEN = (403, "forbidden")
NOT_THERE = (404, "transaction_not_found")


def say(client: httpx.Client, books: Books, what: str, sequence: int, key: str | None = None) -> httpx.Response:
    path = books.path(f"/transactions/{sequence}/{what}")
    return client.post(path, json={}, headers={"Idempotency-Key": key or new_key()})


# Secrets


def test_a_secret_has_the_form_that_scanners_are_told_of(client: httpx.Client) -> None:
    (pattern,) = re.findall(r"`(\\btsk_.*?)`", (ROOT / "docs" / "keys.md").read_text())
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    for _ in range(5):
        secret = make_key(client)
        assert re.findall(pattern, f"key={secret}, and more") == [secret]
        random, said = secret[4:-6], secret[-6:]
        told = sum(digits.index(digit) * 62**place for place, digit in enumerate(reversed(said)))
        assert zlib.crc32(random.encode()) == told


def test_a_secret_is_shown_once_and_kept_as_a_hash(service: Service, client: httpx.Client) -> None:
    made = make_named_key(client, "read")
    secret, name = made["secret"], made["api_key"]["name"]
    listed = {key["name"]: key for page in pages(client, "/v1/api-keys", limit=1000) for key in page["items"]}
    assert listed[name] == made["api_key"]
    assert secret not in json.dumps(listed)
    query = "select secret_digest, api_keys::text as row from api_keys where name = $1"
    (row,) = fetch_now(service.database, query, name)
    assert row["secret_digest"] == hashlib.sha256(secret.encode()).digest()
    assert secret[4:] not in row["row"]


def pages(client: httpx.Client, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    while True:
        page = client.get(path, params=params).json()
        yield page
        if page["next_cursor"] is None:
            return
        params = params | {"cursor": page["next_cursor"]}


def test_keys_are_listed_in_pages_by_name(database: str) -> None:
    with serve(database) as service, service.client() as client:
        for name in ("b", "a.c", "C", "a-b", "a"):
            make_key(client, "read", name=name)
        found = [[key["name"] for key in page["items"]] for page in pages(client, "/v1/api-keys", limit=2)]
    assert found == [["C", "a"], ["a-b", "a.c"], ["b"]]


def test_a_key_says_what_it_may_do(client: httpx.Client, service: Service) -> None:
    expires_at = (service.clock.now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    scope = {"ledgers": ["b", "a", "b"], "account_prefix": "x:y", "amount_max": "9" * 38, "expires_at": expires_at}
    made = make_named_key(client, "post", "read", "post", label="shop", **scope)["api_key"]
    said = {name: made[name] for name in ("label", "operations", *scope, "created_by", "revoked_at", "revoked_by")}
    assert said == scope | {
        "label": "shop",
        "operations": ["read", "post"],
        "ledgers": ["a", "b"],
        "created_by": "operator",
        "revoked_at": None,
        "revoked_by": None,
    }


def test_a_name_is_used_once_even_if_its_key_is_revoked(client: httpx.Client) -> None:
    """So a retry after a lost answer makes no second key, and tells of the first."""
    made = make_named_key(client, "read")["api_key"]
    again = {"name": made["name"], "operations": ["read"]}
    assert code(client.post("/v1/api-keys", json=again)) == (409, "api_key_exists")
    assert client.post(f"/v1/api-keys/{made['name']}/revoke").status_code == 200
    assert code(client.post("/v1/api-keys", json=again)) == (409, "api_key_exists")


@pytest.mark.parametrize("label", ["system", "operator"])
@pytest.mark.parametrize("place", ["label", "name"])
def test_no_key_speaks_for_the_ledger_or_the_operator(client: httpx.Client, label: str, place: str) -> None:
    said = {"name": f"key-of-{label}", "operations": ["read"], place: label}
    assert code(client.post("/v1/api-keys", json=said)) == (422, "validation_failed")


def test_what_is_done_with_a_key_carries_its_label(books: Books) -> None:
    with books.client(label="shop") as shop, books.client(name=f"till-{books.name}") as till:
        for client in (shop, till):
            assert post(client, books.name, transaction(MINE, HOUSE)).status_code == 201
        items = shop.get(books.path("/events?after_sequence=5")).json()["items"]
    assert [event["actor"] for event in items] == ["shop", f"till-{books.name}"]


# Ends


def test_a_key_ends_when_it_expires(database: str) -> None:
    with serve(database) as service, service.client() as operator:
        expires_at = (service.clock.now + timedelta(seconds=10)).isoformat()
        with service.client(make_key(operator, "read", expires_at=expires_at)) as client:
            service.clock.advance(9.999)
            assert client.get("/v1/ledgers").status_code == 200
            service.clock.advance(0.001)
            assert code(client.get("/v1/ledgers")) == (401, "unauthenticated")


def test_a_key_may_expire_at_the_last_instant_of_the_calendar(client: httpx.Client, service: Service) -> None:
    last = "9999-12-31T23:59:59.999999Z"
    made = make_named_key(client, "read", expires_at=last)
    listed = [key for page in pages(client, "/v1/api-keys", limit=1000) for key in page["items"]]
    assert last in (key["expires_at"] for key in listed if key["name"] == made["api_key"]["name"])
    with service.client(made["secret"]) as caller:
        assert caller.get("/v1/ledgers").status_code == 200


def test_revoking_twice_is_answered_as_the_first_time(service: Service, client: httpx.Client) -> None:
    name = make_named_key(client, "read")["api_key"]["name"]
    first = client.post(f"/v1/api-keys/{name}/revoke")
    service.clock.advance(1)
    with service.client(SECOND_KEY) as second:
        assert second.post(f"/v1/api-keys/{name}/revoke").json() == first.json()
    assert first.json()["revoked_by"] == "operator"


def test_the_process_that_revoked_a_key_refuses_it_at_once(service: Service, client: httpx.Client) -> None:
    made = make_named_key(client, "read")
    with service.client(made["secret"]) as caller:
        assert caller.get("/v1/ledgers").status_code == 200
        assert client.post(f"/v1/api-keys/{made['api_key']['name']}/revoke").status_code == 200
        assert code(caller.get("/v1/ledgers")) == (401, "unauthenticated")


def client_of(url: str, secret: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=url, headers=headers, timeout=40, event_hooks={"response": [check_answer]})


def test_a_key_works_on_every_process_at_once_and_is_refused_by_all_within_a_second(two_processes: Processes) -> None:
    one, other = two_processes.urls
    slowest = 0.0
    with client_of(one, KEY) as operator:
        for _ in range(10):
            made = make_named_key(operator, "read")
            with client_of(other, made["secret"]) as caller:
                assert caller.get("/v1/ledgers").status_code == 200
                assert operator.post(f"/v1/api-keys/{made['api_key']['name']}/revoke").status_code == 200
                revoked = asked = time.monotonic()
                while caller.get("/v1/ledgers").status_code == 200:
                    slowest = max(slowest, asked - revoked)
                    asked = time.monotonic()
    assert slowest < 1, "the last request that was let in was sent within a second"


def test_a_key_that_is_waiting_for_events_when_it_is_revoked_is_told_none(books: Books) -> None:
    made = make_named_key(books.operator, "read")
    with books.service.client(made["secret"]) as caller, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(caller.get, books.path("/events"), params={"after_sequence": 5, "wait_seconds": 20})
        time.sleep(0.3)
        assert books.operator.post(f"/v1/api-keys/{made['api_key']['name']}/revoke").status_code == 200
        books.post(MINE, HOUSE)
        assert code(asked.result()) == (401, "unauthenticated")


def test_no_key_is_trusted_for_longer_than_a_second_without_a_look(database: str) -> None:
    """When nobody can tell whether it was revoked, who has one is told to come again, and the operator goes on."""
    with serve(database) as service, service.client() as operator:
        with service.client(make_key(operator, "read")) as caller:
            assert caller.get("/v1/ledgers").status_code == 200
            with holding(database, "lock table api_keys"):
                held = time.monotonic()
                asked = held
                while (answer := caller.get("/v1/ledgers")).status_code == 200:
                    assert asked - held < 1
                    asked = time.monotonic()
                assert code(answer) == (503, "storage_unavailable")
                assert code(caller.get("/v1/ledgers")) == (503, "storage_unavailable")
                assert operator.get("/v1/ledgers").status_code == 200
                with service.client("tsk_" + "0" * 38) as nobody:
                    assert code(nobody.get("/v1/ledgers")) == (401, "unauthenticated")
            wait_until(lambda: caller.get("/v1/ledgers").status_code == 200, seconds_max=5)


def test_a_known_key_costs_no_look_at_the_database(database: str) -> None:
    """What looks at the keys is the task alone, three times a second, however many requests come."""
    looks = "select seq_scan + idx_scan as count from pg_stat_user_tables where relname = 'api_keys'"
    with serve(database) as service, service.client() as operator, service.client(make_key(operator)) as caller:
        before, began = fetch_now(database, looks)[0]["count"], time.monotonic()
        for _ in range(300):
            assert caller.get("/v1/ledgers/nowhere").status_code == 404
        time.sleep(1.2)  # the server's statistics arrive up to a second later
        found = fetch_now(database, looks)[0]["count"] - before
    assert found < 10 + 4 * (time.monotonic() - began) < 300


# A prefix covers whatever is named


@pytest.mark.parametrize(
    "postings",
    [
        [(MINE, HOUSE)],
        [(HOUSE, MINE)],
        [(MINE, YOURS)],
        [(MINE, "nobody")],
        [(MINE, "users:1x")],
        [(MINE, OTHER_OF_MINE), (HOUSE, MINE)],
    ],
)
def test_a_post_is_forbidden_if_any_account_lies_outside_whether_or_not_it_exists(
    books: Books, mine: httpx.Client, postings: list[tuple[str, str]]
) -> None:
    moves = [{"debit_account": debit, "credit_account": credit, "amount": "1"} for debit, credit in postings]
    key = new_key()
    assert code(post(mine, books.name, {"postings": moves}, key)) == FORBIDDEN
    assert code(post(mine, books.name, {"postings": moves, "pending": True})) == FORBIDDEN
    batch = {"transactions": [transaction(MINE, OTHER_OF_MINE), {"postings": moves}]}
    for atomic in (True, False):
        headers = {"Idempotency-Key": new_key()}
        answer = mine.post(books.path("/transaction-batches"), json=batch | {"atomic": atomic}, headers=headers)
        assert code(answer) == FORBIDDEN
    # Nothing was frozen with the key, and nothing done.
    assert post(mine, books.name, transaction(MINE, OTHER_OF_MINE), key).status_code == 201
    assert books.operator.get(books.path()).json()["sequence"] == 6


def test_who_reads_below_a_prefix_reads_nothing_else(books: Books, mine: httpx.Client) -> None:
    for path in (
        "/accounts",
        "/accounts?prefix=users",
        "/accounts?asset=USD/2",
        "/accounts?status=open",
        "/totals",
        "/totals?prefix=bank",
        "/transactions",
        f"/transactions?account={YOURS}",
        "/transactions?account=nobody",
        "/transactions?reference=x",
        "/transactions?group=x",
        "/transactions?effective_from=2020-01-01T00:00:00Z",
    ):
        assert code(mine.get(books.path(path))) == FORBIDDEN, path
    accounts = mine.get(books.path("/accounts?prefix=users:1")).json()
    assert [each["path"] for each in accounts["items"]] == [OTHER_OF_MINE, MINE]
    assert mine.get(books.path("/totals?prefix=users:1")).json()["items"][0]["accounts"] == 2
    assert code(mine.get(books.path("/accounts/users:1:none"))) == (404, "account_not_found")


def test_a_cursor_of_another_key_opens_nothing(books: Books, mine: httpx.Client) -> None:
    books.post(MINE, HOUSE)
    books.post(MINE, HOUSE)
    for path in ("/accounts?", "/accounts?prefix=users&", "/transactions?", f"/transactions?account={HOUSE}&"):
        cursor = books.operator.get(books.path(f"{path}limit=1")).json()["next_cursor"]
        assert cursor is not None
        assert code(mine.get(books.path(f"{path.split('?')[0]}?cursor={cursor}"))) == FORBIDDEN


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_only_transactions_that_lie_within_are_shown_and_pages_tell_of_no_others(
    books: Books, mine: httpx.Client, order: str
) -> None:
    kinds = [(OTHER_OF_MINE, MINE), (HOUSE, MINE), (MINE, YOURS)]
    made = [(kind, books.post(*kinds[kind], 5)) for kind in (1, 0, 2, 1, 0, 1, 1, 0, 2, 2)]
    held = [(kind, books.post(*kinds[kind], 5, pending=True)) for kind in (1, 0, 2, 1, 0, 1, 1, 0, 2, 2)]
    for path, expected in (
        ("/transactions", [*made, *held]),
        (f"/accounts/{MINE}/holds", held),
    ):
        named = {"account": MINE} if path == "/transactions" else {}
        covered = sorted((sequence for kind, sequence in expected if kind == 0), reverse=order == "newest")
        for limit in (1, 2, 3, 100):
            found = list(pages(mine, books.path(path), limit=limit, order=order, **named))
            shown = [[item["sequence"] for item in page["items"]] for page in found]
            # Every page but the last is full: what lies outside leaves no trace in it.
            assert shown == [covered[at : at + limit] for at in range(0, len(covered), limit)]
    for kind, sequence in (*made, *held):
        answer = mine.get(books.path(f"/transactions/{sequence}"))
        assert answer.status_code == (200 if kind == 0 else 404)


@pytest.mark.parametrize("what", ["capture", "void", "reverse"])
def test_what_touches_accounts_outside_is_not_there_for_a_prefix(books: Books, mine: httpx.Client, what: str) -> None:
    pending = {} if what == "reverse" else {"pending": True}
    outside = books.post(MINE, HOUSE, 5, **pending)
    used = new_key()
    assert post(mine, books.name, transaction(MINE, OTHER_OF_MINE), used).status_code == 201
    for sequence in (outside, 999_999, 1):
        key = new_key()
        assert code(say(mine, books, what, sequence, key)) == NOT_THERE
        assert code(say(mine, books, what, sequence, used)) == (422, "idempotency_key_reused")
        # Nothing was frozen with the key.
        assert post(mine, books.name, transaction(MINE, OTHER_OF_MINE), key).status_code == 201
    inside = books.post(MINE, OTHER_OF_MINE, 5, **pending)
    assert say(mine, books, what, inside).status_code == 201
    assert say(books.operator, books, what, outside).status_code == 201
    # Also once it has become of it what it could.
    assert code(say(mine, books, what, outside)) == NOT_THERE


def test_a_reference_of_a_prefix_begins_with_it(books: Books, mine: httpx.Client) -> None:
    """Or who tries one could tell that it is taken, and who takes one could keep it from others."""
    books.post(HOUSE, MINE, reference="order-1")
    held = books.post(MINE, OTHER_OF_MINE, pending=True)
    for reference in ("order-1", "order-2", "users:1", "users:10:order"):
        assert code(post(mine, books.name, transaction(MINE, OTHER_OF_MINE, reference=reference))) == FORBIDDEN
        for sequence in (held, 999_999):
            path = books.path(f"/transactions/{sequence}/capture")
            answer = mine.post(path, json={"reference": reference}, headers={"Idempotency-Key": new_key()})
            assert code(answer) == FORBIDDEN
    assert post(mine, books.name, transaction(MINE, OTHER_OF_MINE, reference="users:1:a")).status_code == 201


def test_ledgers_that_a_key_does_not_name_are_not_listed(books: Books) -> None:
    with books.client("read") as client, books.client("read", ledgers=[books.name, "never-made"]) as other:
        for each in (client, other):
            assert [ledger["name"] for ledger in each.get("/v1/ledgers").json()["items"]] == [books.name]
        assert code(other.get("/v1/ledgers/never-made")) == (404, "ledger_not_found")


def test_a_key_makes_only_the_ledgers_that_it_names(books: Books) -> None:
    with books.client("admin", ledgers=[f"{books.name}-a"]) as client:
        assert code(client.post("/v1/ledgers", json={"name": books.name})) == FORBIDDEN
        assert code(client.post("/v1/ledgers", json={"name": f"{books.name}-b"})) == FORBIDDEN
        assert client.post("/v1/ledgers", json={"name": f"{books.name}-a"}).status_code == 201


# Operations and amounts that a body names


def test_what_a_transaction_takes_is_for_each_of_a_batch_to_say(books: Books) -> None:
    def batch(client: httpx.Client, *pending: bool) -> tuple[int, str | None]:
        said = {"transactions": [transaction(MINE, HOUSE, 5, pending=each) for each in pending]}
        answer = client.post(books.path("/transaction-batches"), json=said, headers={"Idempotency-Key": new_key()})
        return code(answer)

    with books.client("post") as poster, books.client("hold") as holder, books.client("post", "hold") as both:
        assert [batch(poster, *each)[0] for each in ((False,), (True,), (False, True))] == [200, 403, 403]
        assert [batch(holder, *each)[0] for each in ((False,), (True,), (False, True))] == [403, 200, 403]
        assert batch(both, False, True)[0] == 200


def test_no_posting_is_larger_than_a_key_may_make(books: Books) -> None:
    with books.client(amount_max="10") as client:

        def capture(sequence: int, **said: Any) -> tuple[int, str | None]:
            path = books.path(f"/transactions/{sequence}/capture")
            return code(client.post(path, json=said, headers={"Idempotency-Key": new_key()}))

        assert post(client, books.name, transaction(MINE, HOUSE, 10)).status_code == 201
        assert code(post(client, books.name, transaction(MINE, HOUSE, 11))) == FORBIDDEN
        assert code(post(client, books.name, transaction(MINE, HOUSE, 11, pending=True))) == FORBIDDEN
        large = books.post(MINE, HOUSE, 11, pending=True)
        assert capture(large) == FORBIDDEN
        assert capture(large, amounts=[{"posting": 0, "amount": "11"}]) == FORBIDDEN
        assert capture(large, amounts=[{"posting": 0, "amount": "10"}], remainder="keep")[0] == 201
        # What remains is within the bound, and releasing has none.
        assert capture(large)[0] == 201
        assert say(client, books, "void", books.post(MINE, HOUSE, 11, pending=True)).status_code == 201
        assert code(say(client, books, "reverse", books.post(MINE, HOUSE, 11))) == FORBIDDEN
        assert say(client, books, "reverse", books.post(MINE, HOUSE, 10)).status_code == 201


# Idempotency keys


def test_a_retry_with_a_new_key_of_the_same_prefix_is_answered_again(books: Books) -> None:
    """So that who changes his key in the middle of a retry does not pay twice."""
    body, key = transaction(MINE, OTHER_OF_MINE, 5), new_key()
    with books.client(account_prefix="users:1") as old, books.client("post", account_prefix="users:1") as new:
        first, again = post(old, books.name, body, key), post(new, books.name, body, key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()


def test_nobody_can_try_or_use_up_the_idempotency_keys_of_another_prefix(books: Books, mine: httpx.Client) -> None:
    key, body = new_key(), transaction(MINE, OTHER_OF_MINE, 5)
    assert post(books.operator, books.name, body, key).status_code == 201
    with books.client(account_prefix="users") as wider:
        for client in (mine, wider):
            answer = post(client, books.name, transaction(MINE, OTHER_OF_MINE, 7), key)
            assert answer.status_code == 201
            assert "Idempotency-Replayed" not in answer.headers
    again = post(books.operator, books.name, body, key)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("what", ["capture", "reverse"])
def test_a_replay_shows_no_more_than_the_scope_of_who_asks(books: Books, what: str) -> None:
    """Of a capture of all and of a reversal, only the books know the amount, and afterwards nothing remains."""
    sequence, key = books.post(MINE, HOUSE, 11, pending=what == "capture"), new_key()
    assert say(books.operator, books, what, sequence, key).status_code == 201
    with books.client(amount_max="10") as client:
        assert code(say(client, books, what, sequence, key)) == FORBIDDEN


# Rates


def test_a_key_that_asks_too_often_waits_and_others_do_not(database: str) -> None:
    with serve(database, key_requests_per_s=2, key_burst=5) as service, service.client() as operator:
        secrets = [make_key(operator, "read") for _ in range(2)]
        with service.client(secrets[0]) as busy, service.client(secrets[1]) as other:
            answers = [busy.get("/v1/ledgers") for _ in range(10)]
            assert [each.status_code for each in answers[:5]] == [200] * 5
            assert code(answers[-1]) == (429, "rate_limited")
            assert answers[-1].headers["Retry-After"] == "1"
            assert other.get("/v1/ledgers").status_code == 200
            time.sleep(1)
            assert busy.get("/v1/ledgers").status_code == 200


def test_an_address_that_keeps_guessing_is_limited_and_who_has_a_key_is_not(database: str) -> None:
    with serve(database, address_failures_per_s=0.01, address_failure_burst=3) as service:
        with service.client("a-guess-at-a-secret") as guesser, service.client() as operator:
            secret = make_key(operator, "read")
            answers = [guesser.get("/v1/ledgers") for _ in range(5)]
            assert [code(each) for each in answers] == [(401, "unauthenticated")] * 3 + [(429, "rate_limited")] * 2
            assert 90 <= int(answers[-1].headers["Retry-After"]) <= 100
            # Nobody can make himself another address.
            forged = guesser.get("/v1/ledgers", headers={"X-Forwarded-For": "192.0.2.7"})
            assert code(forged) == (429, "rate_limited")
            assert guesser.get("/healthz").status_code == 200
            assert operator.get("/v1/ledgers").status_code == 200
            with service.client(secret) as caller:
                assert caller.get("/v1/ledgers").status_code == 200


def test_behind_a_trusted_proxy_each_client_has_an_address_of_its_own(database: str) -> None:
    changes = {"address_failures_per_s": 0.01, "address_failure_burst": 1, "trusted_proxies": "127.0.0.0/8"}
    with serve(database, **changes) as service, service.client(None) as nobody:

        def ask(forwarded: str) -> int:
            return nobody.get("/v1/ledgers", headers={"X-Forwarded-For": forwarded}).status_code

        assert [ask("192.0.2.7"), ask("192.0.2.7"), ask("192.0.2.8")] == [401, 429, 401]
        # What the client itself claims stands before what the proxy adds.
        assert ask("203.0.113.1, 192.0.2.7") == 429
        # Of IPv6, who has one address of a network has all of them.
        assert [ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:1::1")] == [401, 429, 401]
