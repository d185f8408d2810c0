"""scripts/import_beancount.py: what it makes of names, amounts and legs, and whole journals against the service."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from beancount.core.account_types import AccountTypes
from beancount.scripts import example
from hypothesis import given
from hypothesis import strategies as st

from scripts import import_beancount
from scripts.import_beancount import (
    CODE,
    PATH,
    Chart,
    ImportStopped,
    Plan,
    find_places,
    load,
    main,
    make_plan,
    settle_places,
    spell_code,
    spell_segment,
    split,
    to_units,
)

TYPES = AccountTypes("Assets", "Liabilities", "Equity", "Income", "Expenses")

JOURNAL = """
option "title" "Books of a small shop"
option "name_expenses" "Ausgaben"
option "operating_currency" "EUR"
2019-12-31 commodity EUR
2020-01-01 open Assets:Bank:Sparkasse-München  EUR, USD
2020-01-01 open Assets:Broker "FIFO"
2020-01-01 open Assets:Cash
2020-01-01 open Assets:Wallet
2020-01-01 open Ausgaben:Café
2020-01-01 open Ausgaben:Gebühren
2020-01-01 open Ausgaben:Löhne
2020-01-01 open Ausgaben:Rest
2020-01-01 open Equity:Opening-Balances
2020-01-01 open Income:Gains
2020-01-01 open Income:Löhne
2020-01-01 open Income:É日本
2020-01-01 open Liabilities:Card
2020-01-01 open Liabilities:Steuer

2020-01-01 pad Assets:Bank:Sparkasse-München Equity:Opening-Balances
2020-01-02 balance Assets:Bank:Sparkasse-München  10000.00 EUR

2020-01-03 * "Bäckerei Ö" "Frühstück" #food ^order-7
  Ausgaben:Café            12.50 EUR
  Assets:Cash
2020-01-03 * "Kaffee"
  Ausgaben:Café             2.80 EUR
  Assets:Cash              -2.80 EUR
2020-01-03 * "Kaffee"
  Ausgaben:Café             2.80 EUR
  Assets:Cash              -2.80 EUR
2020-01-04 ! "Gehalt"
  Assets:Bank:Sparkasse-München    2100.00 EUR
  Ausgaben:Löhne                    400.00 EUR
  Liabilities:Steuer               -150.00 EUR
  Assets:Cash                       -50.00 EUR
  Income:Löhne                    -2300.00 EUR
2020-02-01 * "Shares at cost, in two lots"
  Assets:Broker             10 HOOL {500.00 EUR}
  Assets:Broker              5 HOOL {510.00 EUR}
  Ausgaben:Gebühren       9.95 EUR
  Assets:Bank:Sparkasse-München
2020-03-01 * "Sale over both lots, with a gain"
  Assets:Broker            -12 HOOL {} @ 530.00 EUR
  Assets:Bank:Sparkasse-München    6360.00 EUR
  Income:Gains
2020-03-02 * "Exchange at a price"
  Assets:Wallet         100.00 USD @ 0.9123 EUR
  Assets:Bank:Sparkasse-München     -91.23 EUR
2020-03-03 * "Exchange at a total price"
  Assets:Wallet           3.50 USD @@ 3.19 EUR
  Assets:Bank:Sparkasse-München      -3.19 EUR
2020-03-04 * "Futures and odd commodities"
  Assets:Broker              3 /6J @ 12.5 USD
  Assets:Broker           1.25 M'X-1.A_B {2.00 USD}
  Assets:Broker              7 X_Y @ 1 USD
  Assets:Wallet         -47.00 USD
2020-03-05 * "A remainder within beancount's tolerance"
  Ausgaben:Rest            3.333 EUR
  Assets:Cash             -3.33 EUR
2020-03-06 * "Many digits"
  Assets:Wallet          -123456789012345.678901234567890123 WEI
  Income:É日本             123456789012345.678901234567890123 WEI
2020-03-07 * "Nothing moves"
  Assets:Cash                0 EUR
  Ausgaben:Rest              0 EUR
2020-03-08 * "There and back"
  Assets:Cash               20 EUR
  Assets:Cash              -20 EUR
2020-03-09 * "Quarters"
  Assets:Wallet        -10.00/4 USD
  Ausgaben:Rest
2020-04-01 balance Assets:Broker  3 HOOL
2020-04-01 price HOOL 540.00 EUR
"""


class Books:
    """A ledger of its own, and a journal to import into it again and again."""

    def __init__(self, service, folder: Path) -> None:
        self._service = service
        self._file = folder / "shop.beancount"
        self.ledger = f"books-{uuid4().hex}"

    def load(self, text: str, *options: str, url: str = "") -> int:
        self._file.write_text(text)
        url = url or self._service.url
        return main([str(self._file), "--url", url, "--key", self._service.key, "--ledger", self.ledger, *options])

    def accounts(self) -> dict[str, tuple[str, str]]:
        """The asset and the balance of each, by path."""
        return {each["path"]: (each["asset"], each["posted"]) for each in self._read("accounts")}

    def transactions(self) -> list[dict[str, Any]]:
        return self._read("transactions", order="oldest")

    def _read(self, what: str, **query: str) -> list[dict[str, Any]]:
        with self._service.client() as client:
            answer = client.get(f"/v1/ledgers/{self.ledger}/{what}", params={"limit": "1000", **query})
            assert answer.json()["next_cursor"] is None
            return answer.json()["items"]


@pytest.fixture
def books(service, tmp_path: Path) -> Books:
    return Books(service, tmp_path)


def write_transactions(*bodies: str) -> str:
    names = sorted({*re.findall(r"[A-Z]\w+(?::[\w-]+)+", "\n".join(bodies))})
    return "\n".join([*(f"2020-01-01 open {name}" for name in names), *bodies, ""])


def plan_of(tmp_path: Path, text: str, **places: int) -> Plan:
    file = tmp_path / "planned.beancount"
    file.write_text(text)
    journal = load(file, ignore_errors=False)
    scales = settle_places(find_places(journal.transactions), places, {})
    return make_plan(journal.transactions, Chart(journal.types, scales))


# ── Names ──


@given(st.lists(st.text(min_size=1).filter(lambda name: ":" not in name), min_size=1))
def test_an_account_can_be_told_from_its_path(segments: list[str]) -> None:
    """Different accounts never share a path: the spelling of a segment can be undone."""
    spelled = [spell_segment(name) for name in segments]
    read = [name[1:].encode().decode("punycode") if name.startswith("_") else name for name in spelled]
    assert segments == read


@given(st.from_regex(r"(?:[A-Z]|/)[A-Z0-9'._/-]*[A-Z0-9]", fullmatch=True))
def test_a_commodity_can_be_told_from_its_code(commodity: str) -> None:
    """Different commodities never share a code, and every code is one that the contract allows."""
    try:
        code = spell_code(commodity)
    except ImportStopped:
        assert len(commodity) * 3 + 2 > 32
        return
    assert CODE.fullmatch(code)
    hidden = re.sub(r"_([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), code[2:])
    assert commodity == (hidden if code.startswith("X_") else code)


@given(st.from_regex(r"[A-ZÄÖÜÉЖΩ][A-Za-z0-9ÄÖÜäöüßéжω日本-]{0,8}", fullmatch=True))
def test_paths_are_what_the_contract_allows(name: str) -> None:
    assert PATH.fullmatch(Chart(TYPES, {}).path(f"Assets:{name}", "USD"))


def test_plain_names_stay_as_they_are() -> None:
    assert Chart(TYPES, {}).path("Assets:US:BofA:Checking-2", "USD") == "Assets:US:BofA:Checking-2:USD"


@pytest.mark.parametrize(
    ("commodity", "code"), [("USD", "USD"), ("/6J", "X__2F6J"), ("M'X", "X_M_27X"), ("X_Y", "X_X_5FY")]
)
def test_odd_commodities_are_spelled_out(commodity: str, code: str) -> None:
    assert spell_code(commodity) == code


def test_refuses_names_that_are_too_long() -> None:
    with pytest.raises(ImportStopped, match="longer than 32"):
        spell_code("A" * 33)
    with pytest.raises(ImportStopped, match="too long for a path"):
        Chart(TYPES, {}).path("Assets:" + "A" * 250, "USD")


def test_an_account_s_normal_side_is_that_of_its_root() -> None:
    chart = Chart(TYPES._replace(expenses="Ausgaben"), {})
    sides = {name: chart.normal_side(f"{name}:X") for name in (*TYPES, "Ausgaben")}
    assert sides == {
        "Assets": "debit",
        "Ausgaben": "debit",
        "Liabilities": "credit",
        "Equity": "credit",
        "Income": "credit",
        "Expenses": "credit",
    }


# ── Amounts ──


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18))
def test_units_are_exact(number: Decimal) -> None:
    assert Fraction(to_units(number, 20), 10**20) == Fraction(number)


def test_an_amount_finer_than_its_scale_is_never_rounded() -> None:
    with pytest.raises(ValueError, match="more than 2"):
        to_units(Decimal("0.125"), 2)


def test_long_numbers_keep_every_digit(tmp_path: Path) -> None:
    """Beancount by itself rounds the negative one to 28 digits."""
    number = "12345678901234567890123.123456789012345"
    plan = plan_of(
        tmp_path, write_transactions(f'2020-01-01 * "x"\n  Assets:A  -{number} ABC\n  Equity:B  {number} ABC')
    )
    assert [each["amount"] for each in plan.transactions[0].body["postings"]] == [number.replace(".", "")]


def test_refuses_more_places_than_a_scale_has(tmp_path: Path) -> None:
    finest = f"0.{'0' * 38}1"
    with pytest.raises(ImportStopped, match="at most 38 decimal places"):
        plan_of(tmp_path, write_transactions(f'2020-01-01 * "x"\n  Assets:A  {finest} ABC\n  Equity:B  -{finest} ABC'))


def test_refuses_more_digits_than_an_amount_has(tmp_path: Path) -> None:
    text = write_transactions(f'2020-01-01 * "x"\n  Assets:A  {"9" * 37} ABC\n  Equity:B')
    assert plan_of(tmp_path, text, ABC=1).transactions
    with pytest.raises(ImportStopped, match="38 digits of an amount"):
        plan_of(tmp_path, text, ABC=2)


def test_a_recorded_scale_stays() -> None:
    """A journal that lost its finest amount goes on with the ledger's scale; a finer one is refused."""
    assert settle_places({"USD": 0, "EUR": 2}, {"EUR": 4, "USD": 9}, {"USD": 2}) == {"USD": 2, "EUR": 4}
    with pytest.raises(ImportStopped, match="USD has 2 there, and 3 here"):
        settle_places({"USD": 3}, {}, {"USD": 2})


# ── Legs ──


nets = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(-20, 20).filter(bool), max_size=30).map(
    lambda some: {**some, "rest": -sum(some.values())} if sum(some.values()) else some
)


@given(nets)
def test_postings_move_exactly_the_nets(nets: dict[str, int]) -> None:
    """No posting moves nothing, or an account's units to itself; and there are fewer postings than legs."""
    moved: Counter[str] = Counter()
    postings = split(nets)
    for each in postings:
        assert int(each["amount"]) > 0
        assert each["debit_account"] != each["credit_account"]
        moved[each["debit_account"]] += int(each["amount"])
        moved[each["credit_account"]] -= int(each["amount"])
    assert moved == Counter(nets)
    assert len(postings) <= max(0, len(nets) - 1)


@given(nets, st.randoms())
def test_the_order_of_the_legs_makes_no_difference(nets: dict[str, int], random) -> None:
    shuffled = list(nets.items())
    random.shuffle(shuffled)
    assert split(dict(shuffled)) == split(nets)


def test_equal_amounts_are_paired() -> None:
    assert len(split({"a": 7, "b": 5, "c": 3, "d": -3, "e": -5, "f": -7})) == 3


def test_what_is_exchanged_balances_in_each_commodity(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        write_transactions('2020-01-01 * "x"\n  Assets:A  10 HOOL {520.00 USD}\n  Assets:B  -5200.00 USD'),
    )
    assert plan.transactions[0].body["postings"] == [
        {"debit_account": "Assets:A:HOOL", "credit_account": "Equity:conversions:HOOL", "amount": "10"},
        {"debit_account": "Equity:conversions:USD", "credit_account": "Assets:B:USD", "amount": "520000"},
    ]


def test_a_transaction_with_very_many_legs_is_posted_in_parts(tmp_path: Path) -> None:
    legs = "\n".join(f"  Expenses:E{number}  {number + 1} USD" for number in range(1001))
    plan = plan_of(tmp_path, write_transactions(f'2020-01-01 * "Payroll"\n{legs}\n  Assets:A'))
    assert [len(each.body["postings"]) for each in plan.transactions] == [500, 500, 1]
    assert [each.identity[-2:] for each in plan.transactions] == [":1", ":2", ":3"]


# ── Identities ──


COFFEE = '2020-01-01 * "Coffee"\n  Expenses:Café  2.80 EUR\n  Assets:Cash'


def identities(tmp_path: Path, *bodies: str) -> list[str]:
    return [each.identity for each in plan_of(tmp_path, write_transactions(*bodies)).transactions]


def test_equal_transactions_are_told_apart(tmp_path: Path) -> None:
    two = identities(tmp_path, COFFEE, COFFEE)
    three = identities(tmp_path, COFFEE, COFFEE, COFFEE)
    assert len(set(three)) == 3
    assert two == three[:2]


@pytest.mark.parametrize(
    ("old", "new"),
    [("2.80", "2.90"), ("2020-01-01 *", "2020-01-02 *"), ("Coffee", "Tea"), ("Cash", "Bank"), ("*", "!")],
)
def test_an_edited_transaction_is_another_one(tmp_path: Path, old: str, new: str) -> None:
    assert set(identities(tmp_path, COFFEE)).isdisjoint(identities(tmp_path, COFFEE.replace(old, new)))


def test_what_stands_around_a_transaction_does_not_change_it(tmp_path: Path) -> None:
    """Neither comments nor the other transactions, be they finer ones, nor the order of its legs."""
    finer = '2020-01-01 * "Fuel"\n  Expenses:Car  1.0015 EUR\n  Assets:Cash'
    swapped = '2020-01-01 * "Coffee" ; again\n  Assets:Cash  -2.800 EUR\n  Expenses:Café  2.8 EUR'
    assert identities(tmp_path, finer, swapped)[1:] == identities(tmp_path, COFFEE)


# ── Whole journals ──


def test_every_balance_is_beancount_s(books: Books, capsys) -> None:
    assert books.load(JOURNAL, "--check") == 0
    assert "Every balance equals beancount's." in capsys.readouterr().out
    accounts = books.accounts()
    assert accounts["Assets:Broker:HOOL"] == ("HOOL/0", "3")
    assert accounts["Assets:Broker:X__2F6J"] == ("X__2F6J/0", "3")
    assert accounts["Income:_dca2882cb2a:WEI"] == ("WEI/18", "-123456789012345678901234567890123")
    assert accounts["Equity:rounding:EUR"] == ("EUR/3", "3")


def test_a_year_of_an_invented_person_is_beancount_s_too(books: Books, tmp_path: Path) -> None:
    """Salaries, taxes, investments at cost: what `bean-example` of beancount makes up."""
    file = tmp_path / "example.beancount"
    years = ["--date-begin", "2023-01-01", "--date-end", "2023-12-31", "--seed", "1"]
    example.main([*years, "--output", str(file)], standalone_mode=False)
    assert books.load(file.read_text(), "--check") == 0
    assert len(books.transactions()) > 300


def test_what_a_transaction_says_is_recorded(books: Books) -> None:
    books.load(JOURNAL)
    [breakfast] = [each for each in books.transactions() if each["group"]]
    assert breakfast["effective_at"] == "2020-01-03T00:00:00Z"
    assert breakfast["description"] == "Bäckerei Ö | Frühstück"
    assert breakfast["group"] == "order-7"
    assert breakfast["metadata"] == {"flag": "*", "payee": "Bäckerei Ö", "tags": "food", "links": "order-7"}


def test_a_second_run_doubles_nothing(books: Books, capsys) -> None:
    assert books.load(JOURNAL) == 0
    first = books.transactions(), books.accounts()
    assert books.load(JOURNAL, "--check") == 0
    assert (books.transactions(), books.accounts()) == first
    printed = capsys.readouterr().out
    assert "0 transactions posted" in printed
    assert "13 were there" in printed


def test_one_request_at_a_time_keeps_the_order_of_the_journal(books: Books) -> None:
    books.load(JOURNAL, "--in-flight", "1")
    instants = [each["effective_at"] for each in books.transactions()]
    assert instants == sorted(instants)


def test_a_grown_journal_adds_what_is_new(books: Books, capsys) -> None:
    books.load(write_transactions(COFFEE))
    assert books.load(write_transactions(COFFEE, COFFEE, COFFEE.replace("Coffee", "Tea")), "--check") == 0
    assert "2 transactions posted" in capsys.readouterr().out
    assert books.accounts()["Assets:Cash:EUR"] == ("EUR/2", "-840")


def test_an_edit_stops_the_import(books: Books, capsys) -> None:
    books.load(write_transactions(COFFEE))
    assert books.load(write_transactions(COFFEE.replace("2.80", "3.10"))) == 2
    assert "2020-01-01 Coffee" in capsys.readouterr().err
    assert len(books.transactions()) == 1


def test_an_edited_transaction_is_undone_and_posted_anew(books: Books) -> None:
    books.load(write_transactions(COFFEE))
    edited = write_transactions(COFFEE.replace("2.80", "3.10"))
    assert books.load(edited, "--removed", "reverse", "--check") == 0
    assert books.load(edited, "--check") == 0
    assert len(books.transactions()) == 3
    assert books.accounts()["Assets:Cash:EUR"] == ("EUR/2", "-310")


def test_an_edit_can_be_taken_back_again_and_again(books: Books) -> None:
    first = write_transactions(COFFEE)
    second = write_transactions(COFFEE.replace("Coffee", "Tea"))
    for count, text in enumerate([first, second, first, second, first], 1):
        assert books.load(text, "--removed", "reverse", "--check") == 0
        assert len(books.transactions()) == 2 * count - 1


def test_what_was_removed_can_be_kept(books: Books, capsys) -> None:
    """Then the ledger differs from the journal, and --check says where."""
    books.load(write_transactions(COFFEE))
    assert books.load(write_transactions(COFFEE.replace("2.80", "3.10")), "--removed", "keep", "--check") == 1
    table = capsys.readouterr().out.split("differ from beancount's:\n")[1].splitlines()
    assert [row.split() for row in table[1:]] == [
        ["Assets:Cash", "EUR", "-3.1", "-5.9", "-2.8"],
        ["Expenses:Café", "EUR", "3.1", "5.9", "2.8"],
    ]


def test_what_others_post_is_a_difference(books: Books, service, capsys) -> None:
    books.load(JOURNAL)
    with service.client() as client:
        posting = {"debit_account": "Assets:Cash:EUR", "credit_account": "Ausgaben:Rest:EUR", "amount": "1"}
        answer = client.post(
            f"/v1/ledgers/{books.ledger}/transactions",
            json={"postings": [posting]},
            headers={"Idempotency-Key": "by-hand"},
        )
        assert answer.status_code == 201
    assert books.load(JOURNAL, "--check") == 1
    assert "2 balances differ" in capsys.readouterr().out


def test_refuses_the_future_unless_it_is_left_out(books: Books, capsys) -> None:
    later = f"{date.today() + timedelta(days=400)}"
    text = write_transactions(COFFEE, COFFEE.replace("2020-01-01", later))
    assert books.load(text) == 2
    assert f": {later}" in capsys.readouterr().err
    assert books.load(text, "--until", "today", "--check") == 0
    assert len(books.transactions()) == 1


def test_what_was_left_out_comes_later(books: Books) -> None:
    """And what is later than --until has not been removed."""
    text = write_transactions(COFFEE, COFFEE.replace("2020-01-01", "2020-03-01"))
    assert books.load(text, "--until", "2020-02-01", "--check") == 0
    assert len(books.transactions()) == 1
    assert books.load(text, "--check") == 0
    assert books.load(text, "--until", "2020-02-01") == 0
    assert len(books.transactions()) == 2


def test_refuses_what_is_older_than_aledger_can_be(books: Books, capsys) -> None:
    assert books.load(write_transactions(COFFEE).replace("2020-", "1899-")) == 2
    assert "before 1900" in capsys.readouterr().err


def test_errors_stop_the_import_unless_they_are_ignored(books: Books, capsys) -> None:
    text = write_transactions(COFFEE, '2020-01-01 * "Lost"\n  Assets:Cash  5.00 EUR\n  Expenses:Café  -4.00 EUR')
    assert books.load(text) == 2
    assert "does not balance" in capsys.readouterr().err
    assert books.load(text, "--ignore-errors", "--check") == 0
    assert books.accounts()["Equity:rounding:EUR"] == ("EUR/2", "100")


def test_a_finer_amount_needs_anotherledger(books: Books, capsys) -> None:
    finer = COFFEE.replace("2.80", "2.805")
    books.load(write_transactions(COFFEE))
    assert books.load(write_transactions(COFFEE, finer)) == 2
    assert "EUR has 2 there, and 3 here" in capsys.readouterr().err


def test_a_scale_can_leave_room_for_finer_amounts(books: Books) -> None:
    finer = COFFEE.replace("2.80", "2.805")
    books.load(write_transactions(COFFEE), "--scale", "EUR=4")
    assert books.load(write_transactions(COFFEE, finer), "--check") == 0
    assert books.accounts()["Expenses:_Caf-dma:EUR"] == ("EUR/4", "56050")


def test_says_what_the_service_refuses(books: Books, capsys) -> None:
    books.load(write_transactions(COFFEE))
    assert books.load(write_transactions(COFFEE), "--key", "not-a-key-of-the-service") == 2
    assert "401 unauthenticated" in capsys.readouterr().err


# ── Trouble on the way ──


@contextmanager
def between(service) -> Iterator[tuple[str, Counter[str]]]:
    """An address in front of the service that spoils two of three answers, and counts what it did.

    First it answers 503 without asking; then it asks, and loses the answer; then it lets the answer through.
    """
    counts: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.pass_on()

        def do_POST(self) -> None:
            tries[self.headers["Idempotency-Key"]] += 1
            match tries[self.headers["Idempotency-Key"]]:
                case 1:
                    self.rfile.read(int(self.headers["Content-Length"]))
                    counts["refused"] += 1
                    self.answer(503, b'{"code":"overloaded"}')
                case 2:
                    self.ask()
                    counts["lost"] += 1
                    self.close_connection = True
                case _:
                    self.pass_on()

        def pass_on(self) -> None:
            counts["passed"] += 1
            answer = self.ask()
            self.answer(answer.status_code, answer.content)

        def ask(self) -> httpx.Response:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {**self.headers, "Accept-Encoding": "identity"}
            return onward.request(self.command, self.path, content=body, headers=headers)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    tries: Counter[str | None] = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with httpx.Client(base_url=service.url) as onward:
        try:
            yield f"http://127.0.0.1:{server.server_port}", counts
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_refused_and_lost_answers_double_nothing(books: Books, service, monkeypatch) -> None:
    monkeypatch.setattr(import_beancount, "PAUSES_SECONDS", (0.01,) * 7)
    with between(service) as (url, counts):
        assert books.load(JOURNAL, "--check", url=url) == 0
    assert counts["lost"] == counts["refused"] > 30
    assert len(books.transactions()) == 13


def test_gives_up_on_a_service_that_does_not_answer(books: Books, monkeypatch, capsys) -> None:
    monkeypatch.setattr(import_beancount, "PAUSES_SECONDS", (0.01,) * 3)
    with socket.socket() as bound:  # Nobody else gets its port, and nobody listens on it.
        bound.bind(("127.0.0.1", 0))
        assert books.load(JOURNAL, url=f"http://127.0.0.1:{bound.getsockname()[1]}") == 2
    assert "cannot be reached" in capsys.readouterr().err
