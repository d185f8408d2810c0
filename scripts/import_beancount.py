"""Post a beancount journal to a running Tallystick: `scripts/import-beancount FILE`; see docs/beancount.md.

load ─► plan: names, scales, postings, references ─► post what the ledger does not hold yet ─► compare
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from http import HTTPStatus
from itertools import batched
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from beancount import loader
from beancount.core import data, realization
from beancount.core.account_types import AccountTypes
from beancount.parser import lexer, options, printer
from tqdm import tqdm

# What the contract allows.
POSTINGS_MAX = 500
PLACES_MAX = 38
DIGITS_MAX = 38
DESCRIPTION_LENGTH_MAX = 1000
METADATA_LENGTH_MAX = 500
PAGE_ITEMS = 1000
FIRST_DAY = date(1900, 1, 1)
LEDGER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
CODE = re.compile(r"[A-Z][A-Z0-9_.-]{0,31}")
PATH = re.compile(r"(?!.{256})[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
GROUP = re.compile(r"[!-~]{1,255}")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

REQUEST_SECONDS_MAX = 60
PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5)  # before each repetition of a request
RETRY_AFTER_SECONDS_MAX = 30
IN_FLIGHT_MAX = 64
LISTED_MAX = 10  # lines of a list within a message
EXACT_DIGITS = 400  # more than the sums and products of a journal's numbers need

# How a reference reads: what was posted, and whether this is its first, second … time, or undoes that.
REFERENCE = re.compile(r"(beancount1:[0-9a-f]{32}:[0-9]+:[0-9]+)([+-])([0-9]+)")


class ImportStopped(Exception):
    """The import cannot go on; the message tells a person why, and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 1 if --check found a difference, or 2 if the import did not finish."""
    arguments = _parse_arguments(argv)
    try:
        return _run(arguments)
    except ImportStopped as stopped:
        print(stopped, file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on: nothing will double.", file=sys.stderr)
    return 2


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/import-beancount",
        description="Post a beancount journal to a running Tallystick. Run it again to resume, or to add what is new.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the journal")
    parser.add_argument(
        "--url",
        type=_parse_url,
        default="http://127.0.0.1:8000",
        help="the service (default: %(default)s)",
    )
    parser.add_argument("--key", default=_first_key(), help="an API key (default: the first in API_KEY)")
    parser.add_argument("--ledger", help="name of the ledger, one for each journal (default: from FILE)")
    parser.add_argument(
        "--until",
        type=_parse_day,
        metavar="DATE",
        help="leave out what is later: a date that is not in the future, or 'today'",
    )
    parser.add_argument(
        "--scale",
        type=_parse_scale,
        action="append",
        default=[],
        metavar="COMMODITY=PLACES",
        help="keep at least so many decimal places, for finer amounts to come; may be repeated",
    )
    parser.add_argument(
        "--removed",
        choices=["stop", "reverse", "keep"],
        default="stop",
        help="what to do about transactions of an earlier run that FILE no longer has (default: %(default)s)",
    )
    parser.add_argument("--ignore-errors", action="store_true", help="import although beancount finds errors")
    parser.add_argument("--check", action="store_true", help="afterwards compare every balance with beancount's")
    parser.add_argument(
        "--in-flight",
        type=int,
        choices=range(1, IN_FLIGHT_MAX + 1),
        default=16,
        metavar="N",
        help=f"requests on their way at a time, 1 to {IN_FLIGHT_MAX} (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    arguments.ledger = arguments.ledger or _name_ledger(arguments.file)
    if not LEDGER.fullmatch(arguments.ledger):
        parser.error("--ledger: letters, digits, '_', '.' and '-', at most 64")
    if not arguments.key:
        parser.error("set API_KEY, or give --key")
    if not arguments.file.is_file():
        parser.error(f"{arguments.file} is not a file")
    return arguments


def _first_key() -> str:
    """The service takes several keys there, each after its label."""
    return os.environ.get("API_KEY", "").split(",")[0].strip().rpartition(":")[2]


def _parse_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.port == 0:
        raise argparse.ArgumentTypeError("an address such as http://127.0.0.1:8000")
    return text


def _parse_day(text: str) -> date:
    today = datetime.now(UTC).date()
    day = today if text == "today" else date.fromisoformat(text)
    if day > today:
        raise argparse.ArgumentTypeError("a ledger takes no transactions of the future")
    return day


def _parse_scale(text: str) -> tuple[str, int]:
    commodity, _, places = text.rpartition("=")
    if not commodity or int(places) not in range(PLACES_MAX + 1):
        raise argparse.ArgumentTypeError(f"COMMODITY=PLACES, with 0 to {PLACES_MAX} places")
    return commodity, int(places)


def _name_ledger(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).lstrip(".-")[:64] or "journal"


def _run(arguments: argparse.Namespace) -> int:
    journal = load(arguments.file, ignore_errors=arguments.ignore_errors)
    last_day = find_last_day(journal.transactions, until=arguments.until)
    ledger = Ledger(arguments.url, arguments.key, arguments.ledger)
    recorded = ledger.read()
    places = settle_places(find_places(journal.transactions), dict(arguments.scale), recorded.places())
    plan = make_plan(journal.transactions, Chart(journal.types, places))
    print(_bring_up_to_date(ledger, plan, recorded, last_day, arguments))
    if not arguments.check:
        return 0
    differences = find_differences(journal, plan.chart, ledger.read_accounts(), last_day)
    print(show_differences(differences))
    return 1 if differences else 0


def _bring_up_to_date(
    ledger: "Ledger", plan: "Plan", recorded: "Recorded", last_day: date, arguments: argparse.Namespace
) -> str:
    """Post what is missing, undo what was removed if that is wanted, and say what was done."""
    openings = find_openings(plan.accounts, recorded.accounts)
    removed = recorded.find_removed(plan.transactions)
    if arguments.removed == "stop":
        refuse_removed(removed)
    undoings = [undo(identity, standing) for identity, standing in removed if arguments.removed == "reverse"]
    due = [each for each in plan.transactions if each.date <= last_day]
    posts = [each.request(recorded.standings[each.identity]) for each in due]
    posts = [each for each in posts if each]
    started = time.monotonic()
    if not recorded.exists:
        ledger.create(description=f"Imported from {arguments.file.name}")
    ledger.post_all("accounts", openings, arguments.in_flight)
    ledger.post_all("transactions", [*undoings, *posts], arguments.in_flight)
    seconds = time.monotonic() - started
    rate = (len(posts) + len(undoings)) / max(seconds, 0.001)
    others = {
        "were there": len(due) - len(posts),
        "undone": len(undoings),
        "later than --until": len(plan.transactions) - len(due),
        "move nothing": plan.empty_count,
    }
    return (
        f"{arguments.ledger}: {len(posts):,} transactions posted in {seconds:.1f} s, {rate:,.0f} a second; "
        f"{len(openings):,} accounts opened, of {len(plan.accounts):,}"
        + "".join(f"; {count:,} {what}" for what, count in others.items() if count)
    )


# ── The journal ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Journal:
    directives: list[data.Directive]
    types: AccountTypes

    @property
    def transactions(self) -> list[data.Transaction]:
        """In beancount's order: by date, and within a date as they stand in the file."""
        return [each for each in self.directives if isinstance(each, data.Transaction)]


def load(file: Path, *, ignore_errors: bool) -> Journal:
    """Read the journal as beancount does: interpolated, booked, padded, checked, with every digit it has."""
    loader.initialize(use_cache=False)  # Importing a journal leaves nothing beside it.
    directives, errors, option_map = loader.load_file(file)
    digits = _find_longest_number(option_map["include"])
    if digits > getcontext().prec:
        # Beancount would calculate with 28 digits, and round even `-N`. Without need it is not changed: with
        # more digits `10/3` becomes longer than an amount may be.
        with localcontext(prec=EXACT_DIGITS):
            directives, errors, option_map = loader.load_file(file)
    if errors:
        printer.print_errors(errors, file=sys.stderr)
        if not ignore_errors:
            raise ImportStopped(f"Beancount finds {len(errors)} errors; --ignore-errors imports what it loads.")
    return Journal(directives, options.get_account_types(option_map))


def _find_longest_number(files: Iterable[str]) -> int:
    tokens = (token for file in files for token in lexer.lex_iter(file))
    return max((sum(48 <= byte <= 57 for byte in text) for kind, _, text, _ in tokens if kind == "NUMBER"), default=0)


def find_last_day(transactions: Sequence[data.Transaction], *, until: date | None) -> date:
    """Up to which day to post. Refuses a journal that reaches beyond what the ledger takes."""
    _refuse(
        (f"{_place(each)}: {each.date}" for each in transactions if each.date < FIRST_DAY),
        "A ledger takes no transactions from before 1900:",
    )
    today = datetime.now(UTC).date()
    if until is None:
        _refuse(
            (f"{_place(each)}: {each.date}" for each in transactions if each.date > today),
            f"A ledger takes no transactions of the future; --until today leaves out what is later than {today}:",
        )
    return until or today


def _place(directive: data.Directive) -> str:
    return f"{directive.meta['filename']}:{directive.meta['lineno']}"


def _refuse(problems: Iterable[str], heading: str) -> None:
    if lines := list(problems):
        more = [f"… and {len(lines) - LISTED_MAX} more"] if len(lines) > LISTED_MAX else []
        raise ImportStopped("\n  ".join([heading, *lines[:LISTED_MAX], *more]))


# ── Names and scales ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Chart:
    """How accounts and commodities of the journal are called in the ledger. No two get the same name."""

    types: AccountTypes
    places: Mapping[str, int]

    def path(self, account: str, commodity: str) -> str:
        """The account's segments, and the commodity's code as the last one."""
        path = ":".join([*map(spell_segment, account.split(":")), spell_code(commodity)])
        if not PATH.fullmatch(path):
            raise ImportStopped(f"{account} in {commodity} would be called {path}: too long for a path.")
        return path

    def asset(self, commodity: str) -> str:
        return f"{spell_code(commodity)}/{self.places[commodity]}"

    def normal_side(self, account: str) -> str:
        root = account.split(":")[0]
        return "debit" if root in (self.types.assets, self.types.expenses) else "credit"

    def balancing_account(self, transaction: data.Transaction) -> str:
        """Where the other side goes of a commodity whose units do not add up to zero.

        Beancount balances by weight: at cost or price what comes in differs from what goes out, and without
        both a remainder within its tolerance may be left. No account of a journal can have these names, since
        each part of those begins with a capital or a digit.
        """
        exchanged = any(each.cost is not None or each.price is not None for each in transaction.postings)
        return f"{self.types.equity}:{'conversions' if exchanged else 'rounding'}"


def spell_segment(name: str) -> str:
    """ASCII as it is; anything else as `_` and its Punycode (RFC 3492), which can be undone."""
    return name if re.fullmatch("[A-Za-z0-9][A-Za-z0-9-]*", name) else f"_{name.encode('punycode').decode()}"


def spell_code(commodity: str) -> str:
    """As it is if an asset's code may be so; else `X_`, and `_` with two hex digits for each odd byte."""
    plain = re.fullmatch("[A-Z][A-Z0-9_.-]*", commodity) and not commodity.startswith("X_")
    code = commodity if plain else f"X_{re.sub('[^A-Z0-9.-]', _spell_bytes, commodity)}"
    if not CODE.fullmatch(code):
        raise ImportStopped(f"The commodity {commodity} would be called {code}: longer than 32 characters.")
    return code


def _spell_bytes(match: re.Match[str]) -> str:
    return "".join(f"_{byte:02X}" for byte in match[0].encode())


def find_places(transactions: Iterable[data.Transaction]) -> dict[str, int]:
    """The decimal places of each commodity's finest amount, as it is written."""
    places: dict[str, int] = {}
    too_fine = []
    for transaction in transactions:
        for number, commodity in (posting.units for posting in transaction.postings):
            count = max(0, -number.as_tuple().exponent)
            places[commodity] = max(count, places.get(commodity, 0))
            if count > PLACES_MAX:
                too_fine.append(f"{_place(transaction)}: {str(number)[:50]}… {commodity}")
    _refuse(too_fine, f"An asset has at most {PLACES_MAX} decimal places:")
    return places


def settle_places(found: Mapping[str, int], wanted: Mapping[str, int], recorded: Mapping[str, int]) -> dict[str, int]:
    """An asset's scale is fixed when its first account is opened; until then it can be chosen."""
    _refuse(
        (
            f"{commodity} has {recorded[commodity]} there, and {places} here"
            for commodity, places in sorted(found.items())
            if places > recorded.get(commodity, places)
        ),
        "The journal has become finer than the ledger. Import it into a new one (--ledger), and give --scale "
        "there if still finer amounts are to come. Decimal places:",
    )
    return {each: recorded.get(each, max(places, wanted.get(each, 0))) for each, places in found.items()}


def to_units(number: Decimal, places: int) -> int:
    """The number in smallest units. Exact: a number that has more places is an error, and never rounded."""
    units = Fraction(number) * 10**places
    if units.denominator != 1:
        raise ValueError(f"{number} has more than {places} decimal places")
    return units.numerator


# ── The plan ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Request:
    key: str
    body: dict[str, Any]
    origin: str  # what a message about it names


@dataclass(frozen=True)
class Planned:
    """A transaction of the journal, or one part of it if it has more postings than a request may."""

    identity: str
    date: date
    body: dict[str, Any]
    origin: str

    def request(self, standing: "Standing") -> Request | None:
        """None if the ledger has it, and has not undone it since."""
        if standing.is_live:
            return None
        reference = f"{self.identity}+{standing.undone + 1}"
        return Request(reference, {**self.body, "reference": reference}, self.origin)


@dataclass
class Plan:
    """What the ledger should hold."""

    chart: Chart
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    transactions: list[Planned] = field(default_factory=list)
    empty_count: int = 0


def make_plan(transactions: Iterable[data.Transaction], chart: Chart) -> Plan:
    """The same journal always makes the same plan. What an edit changes gets another identity."""
    plan = Plan(chart)
    occurrences: Counter[str] = Counter()
    for transaction in transactions:
        legs = find_legs(transaction, chart)
        content = _content(transaction)
        postings = [each for nets in _paths(legs, chart, plan.accounts).values() for each in split(nets)]
        if not postings:
            plan.empty_count += 1
            continue
        # Amounts without the scale: they do not depend on the other amounts of the journal.
        amounts = [[*key, str(Fraction(units, 10 ** chart.places[key[1]]))] for key, units in legs.items()]
        digest = _digest([content, amounts])
        # Equal transactions are told apart by counting them, so that a third coffee of the day is a third one.
        occurrences[digest] += 1
        for part, some in enumerate(batched(postings, POSTINGS_MAX, strict=False), 1):
            identity = f"beancount1:{digest}:{occurrences[digest]}:{part}"
            body = {**content, "postings": list(some)}
            plan.transactions.append(Planned(identity, transaction.date, body, _place(transaction)))
    return plan


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _content(transaction: data.Transaction) -> dict[str, Any]:
    """What a request says besides its postings."""
    texts = [text for text in (transaction.payee, transaction.narration) if text]
    labels = {
        "flag": transaction.flag,
        "payee": transaction.payee,
        "tags": " ".join(sorted(transaction.tags or ())),
        "links": " ".join(sorted(transaction.links or ())),
    }
    content: dict[str, Any] = {
        "effective_at": f"{transaction.date}T00:00:00Z",
        "metadata": {name: _clean(text, METADATA_LENGTH_MAX) for name, text in labels.items() if text},
    }
    if texts:
        content["description"] = _clean(" | ".join(texts), DESCRIPTION_LENGTH_MAX)
    if groups := [link for link in sorted(transaction.links or ()) if GROUP.fullmatch(link)]:
        content["group"] = groups[0]
    return content


def _clean(text: str, length_max: int) -> str:
    text = CONTROL.sub(" ", text)
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"


def find_legs(transaction: data.Transaction, chart: Chart) -> dict[tuple[str, str], int]:
    """What the transaction adds to each account in each commodity, in smallest units: debits above zero.

    Each commodity adds up to zero, and none of them is zero. Sorted, so that the order of the legs in the
    journal makes no difference.
    """
    legs: Counter[tuple[str, str]] = Counter()
    for posting in transaction.postings:
        number, commodity = posting.units
        legs[posting.account, commodity] += to_units(number, chart.places[commodity])
    rest: Counter[str] = Counter()
    for (_, commodity), units in legs.items():
        rest[commodity] += units
    for commodity, units in rest.items():
        legs[chart.balancing_account(transaction), commodity] -= units
    for (account, commodity), units in legs.items():
        if len(str(abs(units))) > DIGITS_MAX:
            amount = _show_number(Fraction(units, 10 ** chart.places[commodity]))
            raise ImportStopped(
                f"{_place(transaction)}: {account} moves {amount} {commodity}. With the {chart.places[commodity]} "
                f"decimal places of {commodity} these are more than the {DIGITS_MAX} digits of an amount."
            )
    return {key: legs[key] for key in sorted(legs) if legs[key]}


def _paths(
    legs: Mapping[tuple[str, str], int], chart: Chart, accounts: dict[str, dict[str, Any]]
) -> dict[str, dict[str, int]]:
    """The legs by commodity and path. Adds the accounts that are new to `accounts`."""
    nets: dict[str, dict[str, int]] = defaultdict(dict)
    for (account, commodity), units in legs.items():
        path = chart.path(account, commodity)
        nets[commodity][path] = units
        if path not in accounts:
            accounts[path] = {
                "path": path,
                "asset": chart.asset(commodity),
                "normal_side": chart.normal_side(account),
                "description": _clean(f"{account} in {commodity}", DESCRIPTION_LENGTH_MAX),
                "metadata": {"beancount_commodity": commodity},
            }
    return nets


def split(nets: Mapping[str, int]) -> list[dict[str, str]]:
    """Postings that move exactly these nets, which add up to zero, and are fewer than there are nets.

    Equal amounts are paired first, since each such pair saves a posting; then the largest of each side.
    """
    debits = sorted((units, path) for path, units in nets.items() if units > 0)
    credits: dict[int, list[str]] = defaultdict(list)
    for path in sorted(nets, reverse=True):
        if nets[path] < 0:
            credits[-nets[path]].append(path)
    postings = []
    rest = []
    for units, path in debits:
        if credits[units]:
            postings.append(_posting(path, credits[units].pop(), units))
        else:
            rest.append((units, path))
    unpaired = sorted((units, path) for units, paths in credits.items() for path in paths)
    while rest:
        (debit, debited), (credit, credited) = rest.pop(), unpaired.pop()
        amount = min(debit, credit)
        postings.append(_posting(debited, credited, amount))
        if debit > amount:
            rest.append((debit - amount, debited))
        if credit > amount:
            unpaired.append((credit - amount, credited))
    return postings


def _posting(debit_account: str, credit_account: str, units: int) -> dict[str, str]:
    return {"debit_account": debit_account, "credit_account": credit_account, "amount": str(units)}


# ── What the ledger holds ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Standing:
    """How often the ledger posted and undid the transaction of one identity."""

    posted: int = 0
    undone: int = 0
    transaction: dict[str, Any] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.posted > self.undone


@dataclass
class Recorded:
    exists: bool
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    standings: defaultdict[str, Standing] = field(default_factory=lambda: defaultdict(Standing))

    def add(self, transaction: dict[str, Any]) -> None:
        """Count it, if an import posted it."""
        if match := REFERENCE.fullmatch(transaction["reference"] or ""):
            identity, sign, count = match.groups()
            standing = self.standings[identity]
            if sign == "+":
                standing.posted = max(standing.posted, int(count))
                standing.transaction = transaction
            else:
                standing.undone = max(standing.undone, int(count))

    def places(self) -> dict[str, int]:
        """The decimal places of the commodities that an import brought."""
        return {
            account["metadata"]["beancount_commodity"]: int(account["asset"].rpartition("/")[2])
            for account in self.accounts.values()
            if "beancount_commodity" in account["metadata"]
        }

    def find_removed(self, transactions: Iterable[Planned]) -> list[tuple[str, Standing]]:
        """What an earlier import posted, and the journal no longer has."""
        planned = {each.identity for each in transactions}
        return [each for each in self.standings.items() if each[1].is_live and each[0] not in planned]


def find_openings(planned: Mapping[str, dict[str, Any]], recorded: Mapping[str, dict[str, Any]]) -> list[Request]:
    """The accounts still to open. Refuses to post to one that is not what the journal means."""
    _refuse(
        (
            f"{path} is {recorded[path]['asset']}, {recorded[path]['normal_side']}; "
            f"the journal needs {body['asset']}, {body['normal_side']}"
            for path, body in planned.items()
            if path in recorded and any(recorded[path][name] != body[name] for name in ("asset", "normal_side"))
        ),
        "The ledger has other accounts of these names:",
    )
    return [
        Request(f"beancount1:{_digest(path)}", body, path) for path, body in planned.items() if path not in recorded
    ]


def undo(identity: str, standing: Standing) -> Request:
    """A transaction of the same day that swaps the sides."""
    transaction = standing.transaction
    reference = f"{identity}-{standing.posted}"
    body = {
        "postings": [
            _posting(each["credit_account"], each["debit_account"], each["amount"]) for each in transaction["postings"]
        ],
        "effective_at": transaction["effective_at"],
        "description": _clean(f"Undone: {transaction['description'] or ''}", DESCRIPTION_LENGTH_MAX),
        "metadata": {"undoes": str(transaction["sequence"])},
        "reference": reference,
    }
    return Request(reference, body, f"transaction {transaction['sequence']}")


def refuse_removed(removed: Sequence[tuple[str, Standing]]) -> None:
    """An import does not guess whether what is no longer in the journal should be undone."""
    recorded = [standing.transaction for _, standing in removed]
    _refuse(
        (f"{each['sequence']}: {each['effective_at'][:10]} {each['description'] or ''}" for each in recorded),
        "An earlier run posted these, and the journal no longer has them: they were edited or removed. Nothing "
        "was posted now. --removed reverse undoes them, and posts what stands there instead; --removed keep "
        "leaves them:",
    )


# ── The service ──────────────────────────────────────────────────────────────────────────────────────────────


class Ledger:
    """One ledger of a running Tallystick."""

    def __init__(self, url: str, key: str, name: str) -> None:
        self._url = url
        self._key = key
        self._name = name
        self._path = f"/v1/ledgers/{name}"

    def read(self) -> Recorded:
        """Everything that a run has to know of the ones before it."""
        with self._connect() as connection:
            answer = connection.send("GET", self._path)
        if answer.status == HTTPStatus.NOT_FOUND and answer.json()["code"] == "ledger_not_found":
            return Recorded(exists=False)
        answer.expect(HTTPStatus.OK, self._name)
        recorded = Recorded(exists=True, accounts=self.read_accounts())
        for transaction in self._read_all("transactions?order=oldest"):
            recorded.add(transaction)
        return recorded

    def read_accounts(self) -> dict[str, dict[str, Any]]:
        return {account["path"]: account for account in self._read_all("accounts?")}

    def create(self, *, description: str) -> None:
        body = {"name": self._name, "description": _clean(description, DESCRIPTION_LENGTH_MAX)}
        with self._connect() as connection:
            connection.send("POST", "/v1/ledgers", body=body).expect(HTTPStatus.CREATED, self._name)

    def post_all(self, what: str, requests: Sequence[Request], in_flight: int) -> None:
        """Post them in this order, with at most `in_flight` on their way; stop at the first refusal."""
        waiting = iter(requests)  # Threads may share a list's iterator: each item goes to one of them.
        stopped = threading.Event()
        with (
            tqdm(total=len(requests), desc=f"{self._name} {what}", unit="", disable=None) as bar,
            ThreadPoolExecutor(in_flight) as pool,
        ):
            workers = [pool.submit(self._post, what, waiting, bar, stopped) for _ in range(in_flight)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            finally:
                stopped.set()

    def _post(self, what: str, requests: Iterator[Request], bar: tqdm, stopped: threading.Event) -> None:
        with self._connect(stopped) as connection:
            for each in requests:
                answer = connection.send("POST", f"{self._path}/{what}", key=each.key, body=each.body)
                answer.expect(HTTPStatus.CREATED, each.origin)
                with bar.get_lock():
                    bar.update()
                if stopped.is_set():
                    return

    def _read_all(self, what: str) -> Iterator[dict[str, Any]]:
        query = f"{what}&limit={PAGE_ITEMS}"
        with self._connect() as connection:
            while query:
                page = connection.send("GET", f"{self._path}/{query}").expect(HTTPStatus.OK, self._name)
                yield from page["items"]
                cursor = page["next_cursor"]
                query = cursor and f"{what.partition('?')[0]}?limit={PAGE_ITEMS}&cursor={cursor}"

    def _connect(self, stopped: threading.Event | None = None) -> "Connection":
        return Connection(self._url, self._key, stopped or threading.Event())


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    retry_after_seconds: int

    def json(self) -> Any:
        return json.loads(self.body)

    def expect(self, status: int, origin: str) -> Any:
        """What it says, if it has this status; else the import stops, naming what was asked for."""
        if self.status == status:
            return self.json()
        try:
            problem = self.json()
            reason = f"{problem['code']}: {problem['detail']}"
            errors = [f"{each['pointer']}: {each['message']}" for each in problem.get("errors") or ()]
        except (ValueError, KeyError, TypeError):
            reason, errors = self.body[:200].decode(errors="replace"), []
        raise ImportStopped("\n  ".join([f"{origin}: the service answers {self.status} {reason}", *errors]))


class Connection:
    """One connection to the service, opened again when it breaks. For one thread at a time."""

    def __init__(self, url: str, key: str, stopped: threading.Event) -> None:
        parts = urlsplit(url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = make(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS_MAX)
        self._url = url
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._stopped = stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(self, method: str, path: str, *, key: str | None = None, body: dict[str, Any] | None = None) -> Answer:
        """Repeat it with the same key until it is answered: however often it arrives, it takes effect once."""
        payload = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Idempotency-Key": key} if key else {})}
        trouble = ""
        for pause in (0, *PAUSES_SECONDS):
            if self._stopped.wait(pause):
                break
            try:
                answer = self._send_once(method, path, payload, headers)
            except (OSError, http.client.HTTPException) as error:
                self._http.close()
                trouble = f"{type(error).__name__} {error}"
                continue
            if answer.status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                return answer
            trouble = f"{answer.status} {answer.body[:200].decode(errors='replace')}"
            self._stopped.wait(min(answer.retry_after_seconds, RETRY_AFTER_SECONDS_MAX))
        raise ImportStopped(
            f"{self._url} cannot be reached, or cannot answer: {trouble}. Run it again to go on: nothing will double."
        )

    def _send_once(self, method: str, path: str, payload: bytes | None, headers: dict[str, str]) -> Answer:
        self._http.request(method, self._prefix + path, payload, headers)
        response = self._http.getresponse()
        retry_after = response.headers.get("Retry-After", "")
        return Answer(response.status, response.read(), int(retry_after) if retry_after.isdecimal() else 0)


# ── The comparison ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Difference:
    account: str
    commodity: str
    journal: Fraction
    ledger: Fraction


def find_differences(
    journal: Journal, chart: Chart, accounts: Mapping[str, dict[str, Any]], last_day: date
) -> list[Difference]:
    """Every account whose balance is not what beancount itself makes of the journal.

    The accounts that stand for conversions and rounding are not compared: beancount has none such, and since
    each asset of a ledger adds up to zero they are right if all the others are.
    """
    expected = _realize(journal.directives, last_day)
    names = {chart.path(*each): each for each in expected}
    apart = tuple(f"{spell_segment(chart.types.equity)}:{name}:" for name in ("conversions", "rounding"))
    differences = []
    for path in sorted(names.keys() | {path for path in accounts if not path.startswith(apart)}):
        account, commodity = names.get(path) or (path, accounts[path]["asset"])
        found = _balance(accounts[path]) if path in accounts else Fraction(0)
        if found != expected.get((account, commodity), 0):
            differences.append(Difference(account, commodity, expected.get((account, commodity), Fraction(0)), found))
    return differences


def _realize(directives: Iterable[data.Directive], last_day: date) -> dict[tuple[str, str], Fraction]:
    with localcontext(prec=EXACT_DIGITS):  # or beancount's sums were rounded to 28 digits
        root = realization.realize([each for each in directives if each.date <= last_day])
        return {
            (real.account, commodity): Fraction(real.balance.get_currency_units(commodity).number)
            for real in realization.iter_children(root)
            for commodity in real.balance.currencies()
        }


def _balance(account: Mapping[str, Any]) -> Fraction:
    """In beancount's sense: debits above zero."""
    sign = 1 if account["normal_side"] == "debit" else -1
    return Fraction(sign * int(account["posted"]), 10 ** int(account["asset"].rpartition("/")[2]))


def show_differences(differences: Sequence[Difference]) -> str:
    if not differences:
        return "Every balance equals beancount's."
    rows = [("account", "commodity", "beancount", "Tallystick", "difference")]
    for each in differences:
        numbers = (each.journal, each.ledger, each.ledger - each.journal)
        rows.append((each.account, each.commodity, *map(_show_number, numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [*map(str.ljust, row[:2], widths[:2]), *map(str.rjust, row[2:], widths[2:])],
        )
        for row in rows
    ]
    return "\n".join([f"{len(differences)} balances differ from beancount's:", *lines])


def _show_number(number: Fraction) -> str:
    with localcontext(prec=EXACT_DIGITS):
        return f"{Decimal(number.numerator) / number.denominator:f}"


if __name__ == "__main__":
    sys.exit(main())
