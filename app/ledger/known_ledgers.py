"""The ledgers that a process knows by name: their ids and identities, shared by its reads and its writer.

An id is given out by the database, which gives it again to another ledger after a backup was restored. An identity is
random and never given out twice. What a process knows is therefore only a place to look: every statement that begins
a read or a batch returns the identity of the head that it found, and a ledger of another identity is looked up anew.
"""

from typing import NamedTuple

# How many names of ledgers a process keeps.
KNOWN_MAX = 100_000


class LedgerRef(NamedTuple):
    """A ledger in the database: the id that leads its keys, and the identity of its head."""

    ledger_id: int
    identity: str


class LedgerReplaced(Exception):
    """The database has another ledger under this id, or none: a backup was restored. Nothing was read or written."""


class KnownLedgers:
    """Names with the ledgers that were found under them. One per process, on its event loop."""

    def __init__(self) -> None:
        self._ledgers: dict[str, LedgerRef] = {}

    def find(self, name: str) -> LedgerRef | None:
        return self._ledgers.get(name)

    def keep(self, name: str, ledger: LedgerRef) -> None:
        if len(self._ledgers) >= KNOWN_MAX:
            self._ledgers.clear()
        self._ledgers[name] = ledger

    def forget(self, name: str, ledger: LedgerRef) -> None:
        """Forget what was found under a name, unless another ledger has been found there since."""
        if self._ledgers.get(name) == ledger:
            del self._ledgers[name]

    def clear(self) -> None:
        self._ledgers.clear()
