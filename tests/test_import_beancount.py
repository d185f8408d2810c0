"""scripts/import_beancount.py: what it makes of names, amounts and legs, and whole journals against the service."""

import json
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
from beancount.core.account_types import AccountTypes
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
    show_differences,
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
2020-01-01 open Income:日本
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
  Income:日本             123456789012345.678901234567890123 WEI
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


@pytest.fixture
def import_journal(service, tmp_path: Path) -> Callable[..., int]:
    """Import a journal, each test into a ledger of its own."""
    ledger = f"books-{uuid4().hex}"

    def run(text: str, *options: str, url: str = service.url) -> int:
        file = tmp_path / "shop.beancount"
        file.write_text(text)
        return main([str(file), "--url", url, "--key", service.key, "--ledger", ledger, *options])

    run.read = lambda what: read_all(service, ledger, what)
    return run


def read_all(service, ledger: str, what: str) -> list[dict]:
    items = []
    query = "limit=1000"
    while query:
        request = urllib.request.Request(
            f"{service.url}/v1/ledgers/{ledger}/{what}?{query}",
            headers={"Authorization": f"Bearer {service.key}"},
        )
        with urllib.request.urlopen(request) as answer:
            page = json.load(answer)
        items += page["items"]
        query = page["next_cursor"] and f"cursor={page['next_cursor']}"
    return items


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
        plan_of(
            tmp_path, write_transactions(f'2020-01-01 * "x"\n  Assets:A  {finest} ABC\n  Equity:B  -{finest} ABC')
        )


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
    ("old", "new"), [("2.80", "2.90"), ("2020-01-01 *", "2020-01-02 *"), ("Coffee", "Tea"), ("Cash", "Bank"), ("*", "!")]
)
def test_an_edited_transaction_is_another_one(tmp_path: Path, old: str, new: str) -> None:
    assert set(identities(tmp_path, COFFEE)).isdisjoint(identities(tmp_path, COFFEE.replace(old, new)))


def test_what_stands_around_a_transaction_does_not_change_it(tmp_path: Path) -> None:
    """Neither comments nor the other transactions, be they finer ones, nor the order of its legs."""
    finer = '2020-01-01 * "Fuel"\n  Expenses:Car  1.0015 EUR\n  Assets:Cash'
    swapped = '2020-01-01 * "Coffee" ; again\n  Assets:Cash  -2.800 EUR\n  Expenses:Café  2.8 EUR'
    assert identities(tmp_path, finer, swapped)[1:] == identities(tmp_path, COFFEE)


# ── Whole journals ──


def test_every_balance_is_beancount_s(import_journal, capsys) -> None:
    assert import_journal(JOURNAL, "--check") == 0
    assert "Every balance equals beancount's." in capsys.readouterr().out
    balances = {each["path"]: (each["asset"], each["posted"]) for each in import_journal.read("accounts")}
    assert balances["Assets:Broker:HOOL"] == ("HOOL/0", "3")
    assert balances["Assets:Broker:X__2F6J"] == ("X__2F6J/0", "3")
    assert balances["Income:_wgv71a:WEI"] == ("WEI/18", "-123456789012345678901234567890123")
    assert balances["Equity:rounding:EUR"] == ("EUR/3", "3")


def test_a_second_run_doubles_nothing(import_journal, capsys) -> None:
    assert import_journal(JOURNAL) == 0
    first = import_journal.read("events" if False else "transactions"), import_journal.read("accounts")
    assert import_journal(JOURNAL, "--check") == 0
    assert (import_journal.read("transactions"), import_journal.read("accounts")) == first
    assert "0 transactions posted, 15 were there" in capsys.readouterr().out
