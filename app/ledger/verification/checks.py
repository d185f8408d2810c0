"""The invariants that are verified, by name, and what was found of each."""

from collections.abc import Iterable
from dataclasses import dataclass

RANGE_CHECKS = (
    "sequence_gapless",
    "recorded_at_never_falls",
    "head_is_last_event",
    "entries_sum_to_zero",
    "postings_have_entries",
    "balances_run",
    "latest_effective_runs",
    "late_entries_match",
    "counters_are_fold_of_entries",
    "configuration_is_last_event",
    "limits_hold",
    "holds_are_fold_of_events",
    "captured_and_released_within_held",
    "expired_when_due",
    "next_expiry_not_late",
    "reversals_mirror",
    "one_reversal_each",
    "triggers_stand",
)
WHOLE_CHECKS = (
    *RANGE_CHECKS,
    "entries_have_events",
    "entries_have_postings",
    "log_rebuilds_accounts",
    "pending_is_what_is_held",
    "closed_periods_hold",
    "one_effect_per_key",
    "effects_have_keys",
)


@dataclass(slots=True)
class Check:
    """One invariant, as far as it was looked at."""

    name: str
    checked: int = 0
    offenders: int = 0
    first_offender: str | None = None


class Findings:
    """What a verification has found so far, check by check."""

    def __init__(self, names: Iterable[str]) -> None:
        self._checks = {name: Check(name) for name in names}

    @property
    def checks(self) -> list[Check]:
        return list(self._checks.values())

    def see(self, name: str, holds: bool, where: str) -> None:
        self.add(name, 1, 0 if holds else 1, where)

    def add(self, name: str, checked: int, offenders: int, where: str) -> None:
        check = self._checks[name]
        check.checked += checked
        check.offenders += offenders
        if offenders and check.first_offender is None:
            check.first_offender = where
