"""The keys of a ledger against its events: one effect each, and each effect its key."""

from sqlalchemy import select

from app.ledger.verification.bits import Bits
from app.ledger.verification.checks import Findings
from app.ledger.verification.rows import Rows
from app.models import idempotency_keys

KEYS_PAGE = 5_000


async def verify_keys(rows: Rows, findings: Findings, present: Bits, keyless: Bits, upto: int) -> None:
    """Each key's effect, once; and each event's key. What the log does by itself, an expiry, has none."""
    keys = idempotency_keys
    query = (
        select(keys.c.key, keys.c.sequence, keys.c.refusal.is_(None).label("effect"), keys.c.events)
        .where(keys.c.ledger_id == rows.ledger_id)
        .order_by(keys.c.key)
        .limit(KEYS_PAGE)
    )
    keyed = Bits(upto)
    found = await rows.read(query)
    while found:
        for row in found:
            # Of a batch, so many events from its sequence on.
            made = range(row.sequence, row.sequence + (1 if row.events is None else row.events))
            for sequence in made if row.effect and row.sequence <= upto else ():
                once = sequence in present and sequence not in keyless and sequence not in keyed
                if sequence in present:
                    keyed.add(sequence)
                findings.see("one_effect_per_key", once, f"key {row.key.hex()} of event {sequence}")
        found = await rows.read(query.where(keys.c.key > found[-1].key))
    lacking, first = present.find_lacking(keyed, keyless)
    findings.add("effects_have_keys", upto - len(keyless), lacking, f"event {first}")
