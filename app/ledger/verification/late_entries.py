"""Each late entry from its own side: those that entries should have were looked for with the entries."""

from typing import Any

from sqlalchemy import text

from app.ledger.values import EARLIEST
from app.ledger.verification.checks import Findings
from app.ledger.verification.rows import Rows

LATE_PAGE = 2_000

LATE = text("""
select l.account_id, l.effective_at, l.version, l.amount::text as amount, e.debit, e.posted::text as posted,
       e.latest_effective, coalesce(v.effective_at, v.recorded_at) as event_effective_at, a.normal_side
  from (select * from late_entries x where x.ledger_id = :ledger
           and (x.account_id, x.effective_at, x.version) > (:account, :effective_at, :version)
         order by x.account_id, x.effective_at, x.version limit :count) l
  left join lateral (select * from entries x where x.ledger_id = :ledger and x.account_id = l.account_id
                        and x.version = l.version offset 0) e on true
  left join lateral (select * from events x where x.ledger_id = :ledger and x.sequence = e.sequence
                     offset 0) v on true
  left join lateral (select * from accounts x where x.ledger_id = :ledger and x.account_id = l.account_id
                     offset 0) a on true
 order by l.account_id, l.effective_at, l.version
""")


async def verify_late_entries(rows: Rows, findings: Findings) -> None:
    place: dict[str, Any] = {"account": 0, "effective_at": EARLIEST, "version": 0}
    found = await rows.read(LATE, **place, count=LATE_PAGE)
    while found:
        for row in found:
            raised = None
            if row.posted is not None:
                raised = int(row.posted) if row.debit == (row.normal_side == "debit") else -int(row.posted)
            holds = (
                raised == int(row.amount)
                and raised != 0
                and row.event_effective_at == row.effective_at
                and row.effective_at < row.latest_effective
            )
            findings.see("late_entries_match", holds, f"late entry {row.version} of account {row.account_id}")
        last = found[-1]
        place = {"account": last.account_id, "effective_at": last.effective_at, "version": last.version}
        found = await rows.read(LATE, **place, count=LATE_PAGE)
