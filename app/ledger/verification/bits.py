"""A set of sequences of a log at a bit each."""

from __future__ import annotations


class Bits:
    def __init__(self, upto: int) -> None:
        self._bytes = bytearray(upto // 8 + 1)

    def __contains__(self, sequence: int) -> bool:
        return 0 <= sequence < 8 * len(self._bytes) and bool(self._bytes[sequence // 8] & 1 << sequence % 8)

    def __len__(self) -> int:
        return int.from_bytes(self._bytes, "little").bit_count()

    def add(self, sequence: int) -> None:
        """Add a sequence, which is none after the last that this was made for."""
        self._bytes[sequence // 8] |= 1 << sequence % 8

    def find_lacking(self, *others: Bits) -> tuple[int, int]:
        """How many of these none of the others has, and the first of them."""
        lacking = int.from_bytes(self._bytes, "little")
        for other in others:
            lacking &= ~int.from_bytes(other._bytes, "little")
        return lacking.bit_count(), (lacking & -lacking).bit_length() - 1
