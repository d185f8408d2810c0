"""Inclusion of patterns, against every short string and against the patterns of our own contract."""

import re
from itertools import product

import pytest

from scripts.contract.patterns import includes, lengths
from tests.conformance import DOCUMENT

EQUAL, WIDER, NARROWER, NEITHER, UNDECIDED = "=", ">", "<", "≠", "?"

TABLE = [
    ("^a$", "^a$", EQUAL),
    ("^[a-c]$", "^(a|b|c)$", EQUAL),
    ("^a*$", "^(aa*)?$", EQUAL),
    ("^a{2,3}$", "^aa(a)?$", EQUAL),
    ("^a+?$", "^a+$", EQUAL),
    ("^(?:ab)+$", "^(ab)+$", EQUAL),
    ("^[a-z]+$", "^[a-y]+$", WIDER),
    ("^[a-z]*$", "^[a-z]+$", WIDER),
    ("^a{0,4}$", "^a{0,3}$", WIDER),
    ("a", "^a$", WIDER),
    ("a", "^a", WIDER),
    ("^", "a", WIDER),
    ("^[^b]$", "^a$", WIDER),
    ("^[^b]$", "^[^ab]$", WIDER),
    ("^a|b", "^a$", UNDECIDED),
    ("^a$", "^b$", NEITHER),
    ("^[ab]c?$", "^[bc]$", NEITHER),
    (r"^\u0061$", "^a$", EQUAL),
    (r"^\x61\.$", "^a[.]$", EQUAL),
    ("^.$", "^a$", UNDECIDED),
    (r"^\d$", "^[0-9]$", UNDECIDED),
    ("^(?=a)a$", "^a$", UNDECIDED),
    (r"^(a)\1$", "^aa$", UNDECIDED),
    ("^a{9999}$", "^a$", UNDECIDED),
    ("(", "^a$", UNDECIDED),
]


def relation(one: str, other: str) -> str:
    there, back = includes(one, other), includes(other, one)
    if there is None or back is None:
        return UNDECIDED
    return {(True, True): EQUAL, (True, False): WIDER, (False, True): NARROWER, (False, False): NEITHER}[there, back]


@pytest.mark.parametrize(("one", "other", "expected"), TABLE)
def test_how_two_patterns_lie_to_each_other(one, other, expected):
    assert expected == relation(one, other)
    mirrored = {WIDER: NARROWER, NARROWER: WIDER}.get(expected, expected)
    assert mirrored == relation(other, one)


def test_inclusion_agrees_with_every_string_of_up_to_four_characters():
    """Two hundred pairs of patterns, each against 340 strings that Python's own `re` judges."""
    parts = ["a", "b*", "[ab]", "a?", "(ab|b)", "[^a]", "a{1,2}", "(a|bc)*"]
    patterns = [*[f"^{one}{other}$" for one, other in product(parts, repeat=2)][::3], "a", "^b", "c$", "^$"]
    strings = ["".join(letters) for length in range(5) for letters in product("abcd", repeat=length)]
    taken = {pattern: {text for text in strings if re.search(pattern, text)} for pattern in patterns}
    pairs = list(product(patterns, repeat=2))
    assert len(pairs) > 200
    told = {True: 0, False: 0}
    for wide, narrow in pairs:
        included = includes(wide, narrow)
        told[included] += 1
        # Patterns as short as these differ, if at all, in a string of four characters.
        assert included == (taken[narrow] <= taken[wide]), (wide, narrow)
    assert min(told.values()) > 90, told


def test_the_patterns_of_the_contract_are_all_decided():
    schemas = [*DOCUMENT["components"]["schemas"].values()]
    patterns = sorted({schema["pattern"] for schema in schemas if "pattern" in schema})
    assert len(patterns) >= 8
    undecided = [(one, other) for one in patterns for other in patterns if includes(one, other) is None]
    assert [] == undecided


def test_the_lengths_of_what_a_pattern_takes():
    assert (1, 39) == lengths("^(0|-?[1-9][0-9]{0,37})$")
    assert (0, float("inf")) == lengths("^[a-z]*$")
    assert (0, float("inf")) == lengths("[a-z]")
    assert (42, 42) == lengths("^tsk_[0-9A-Za-z]{38}$")
