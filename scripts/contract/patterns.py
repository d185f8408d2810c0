"""Whether each string that one pattern takes is taken by another: inclusion of regular languages, decided exactly.

Patterns of the portable subset are regular: literals, classes, groups, alternatives and repetitions, anchored or not.
Both become nondeterministic automata, and the pairs of state sets that one input leads to are walked; a pair where the
first accepts and the second does not is a string that tells them apart. What is not regular, what regex dialects
disagree on (`.`, `\\d`, `\\w`, `\\s`, `\\b`), and what grows past the bounds is not decided.
"""

from collections.abc import Iterable
from functools import cache
from math import inf
from re import PatternError
from re import _constants as regex  # the parser of the standard library, which `re` itself uses
from re import _parser as parser

STATES_MAX = 5_000  # of one automaton
PAIRS_MAX = 50_000  # of state sets that are looked at
LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


class Undecided(Exception):
    """Nothing can be said of the pattern."""


class Automaton:
    """The states of a pattern; `steps` take one character of a range, `free` none."""

    def __init__(self, pattern: str) -> None:
        self.steps: list[list[tuple[int, int, int]]] = []
        self.free: list[list[int]] = []
        try:
            parsed = list(parser.parse(pattern))
        except (PatternError, OverflowError, RecursionError) as trouble:
            raise Undecided from trouble
        begins = bool(parsed) and parsed[0] == (regex.AT, regex.AT_BEGINNING)
        ends = len(parsed) > begins and parsed[-1] == (regex.AT, regex.AT_END)
        self.start = self.state()
        at = self.start if begins else self.anything(self.start)
        at = self.sequence(parsed[begins : len(parsed) - ends], at)
        self.end = at if ends else self.anything(at)

    def state(self) -> int:
        if len(self.steps) >= STATES_MAX:
            raise Undecided
        self.steps.append([])
        self.free.append([])
        return len(self.steps) - 1

    def anything(self, at: int) -> int:
        after = self.state()
        self.free[at].append(after)
        self.steps[after].append((0, LAST, after))
        return after

    def sequence(self, items: Iterable, at: int) -> int:
        for operation, argument in items:
            at = self.item(operation, argument, at)
        return at

    def item(self, operation: object, argument, at: int) -> int:
        if operation is regex.LITERAL:
            return self.take(((argument, argument),), at)
        if operation is regex.NOT_LITERAL:
            return self.take(complement(((argument, argument),)), at)
        if operation is regex.IN:
            return self.take(ranges_of(argument), at)
        if operation is regex.SUBPATTERN and not argument[1] and not argument[2]:
            return self.sequence(argument[3], at)
        if operation is regex.BRANCH:
            after = self.state()
            for branch in argument[1]:
                self.free[self.sequence(branch, self.fork(at))].append(after)
            return after
        if operation in (regex.MAX_REPEAT, regex.MIN_REPEAT):
            return self.repeat(*argument, at)
        raise Undecided

    def fork(self, at: int) -> int:
        branch = self.state()
        self.free[at].append(branch)
        return branch

    def take(self, ranges: Ranges, at: int) -> int:
        after = self.state()
        self.steps[at].extend((low, high, after) for low, high in ranges)
        return after

    def repeat(self, least: int, most: int, items, at: int) -> int:
        for _ in range(least):
            at = self.sequence(items, at)
        if most == regex.MAXREPEAT:
            loop = self.fork(at)
            self.free[self.sequence(items, loop)].append(loop)
            return self.fork(loop)
        after = self.state()
        for _ in range(most - least):
            self.free[at].append(after)
            at = self.sequence(items, at)
        self.free[at].append(after)
        return after

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        reached, waiting = set(), list(states)
        while waiting:
            state = waiting.pop()
            if state not in reached:
                reached.add(state)
                waiting += self.free[state]
        return frozenset(reached)

    def after(self, states: frozenset[int], character: int) -> frozenset[int]:
        return self.closure(
            target for state in states for low, high, target in self.steps[state] if low <= character <= high
        )


def ranges_of(items: Iterable) -> Ranges:
    """The characters of a class."""
    ranges, negated = [], False
    for operation, argument in items:
        if operation is regex.NEGATE:
            negated = True
        elif operation is regex.LITERAL:
            ranges.append((argument, argument))
        elif operation is regex.RANGE:
            ranges.append(argument)
        else:
            raise Undecided
    return complement(tuple(ranges)) if negated else tuple(ranges)


def complement(ranges: Ranges) -> Ranges:
    rest, low = [], 0
    for first, last in sorted(ranges):
        if first > low:
            rest.append((low, first - 1))
        low = max(low, last + 1)
    return (*rest, (low, LAST)) if low <= LAST else tuple(rest)


@cache
def includes(wide: str, narrow: str) -> bool | None:
    """Whether `wide` takes every string that `narrow` takes; None where that is not decided."""
    try:
        one, other = Automaton(narrow), Automaton(wide)
    except Undecided:
        return None
    # One character stands for all between two edges: no step tells them apart.
    characters = sorted({0} | {edge for it in (one, other) for step in it.steps for low, high, _ in step
                               for edge in (low, high + 1) if edge <= LAST})  # fmt: skip
    first = one.closure([one.start]), other.closure([other.start])
    seen, waiting = {first}, [first]
    while waiting:
        ours, theirs = waiting.pop()
        if one.end in ours and other.end not in theirs:
            return False
        for character in characters:
            pair = one.after(ours, character), other.after(theirs, character)
            if pair[0] and pair not in seen:
                seen.add(pair)
                waiting.append(pair)
        if len(seen) > PAIRS_MAX:
            return None
    return True


@cache
def lengths(pattern: str) -> tuple[int, float]:
    """The least and the greatest length of what an anchored pattern takes; nothing is said of any other."""
    try:
        parsed = parser.parse(pattern)
    except (PatternError, OverflowError, RecursionError):
        return 0, inf
    items = list(parsed)
    if len(items) < 2 or items[0] != (regex.AT, regex.AT_BEGINNING) or items[-1] != (regex.AT, regex.AT_END):
        return 0, inf
    least, most = parsed.getwidth()
    return least, most if most < parser.MAXWIDTH else inf
