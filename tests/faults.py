"""Books of every shape, and the faults that are planted in them behind the triggers' back: what each breaks."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx

from app.ledger.verification.guards import TRIGGERS
from tests.books import new_key, open_account, post, transaction
from tests.conftest import Clock

PAST = "2020-01-01T00:00:00Z"
EVENTS = 39
TABLES = sorted({table for table, _ in TRIGGERS})
# What a fault that is planted by hand must not set off.
ASLEEP = "; ".join(f"alter table {table} disable trigger user" for table in TABLES)
AWAKE = "; ".join(
    f"alter table {table} enable {'always ' if mode == 'A' else ''}trigger {name}"
    for (table, name), mode in TRIGGERS.items()
)
LAST = "(select sequence from heads where ledger_id = 1)"


def keep_books(client: httpx.Client, clock: Clock) -> None:
    """One ledger: event 1; accounts a, b, c opened by 2, 3, 4; transactions 5 to 11, of which 8 is late; an account
    of no use by 12. Holds: 13, of which 14 and 15 capture some and 31 is the expiry; 16 of two lines, captured in
    part by 17; 18, voided by 19; 24 of two lines, of which 25 captures one, and 26, both live; 27, captured by 28
    before its time; 29, captured by 30 long ago; 33, captured by 34. Reversals: 21 of 20, 22 of 10, which is the
    same, and 23 of 17.
    35 closes the books, 36 opens d, and 37 is a transaction between it and c. 38 is a hold on c, voided by 39."""
    assert 201 == client.post("/v1/ledgers", json={"name": "main"}).status_code
    open_account(client, "main", "a")
    open_account(client, "main", "b", normal_side="credit", minimum_balance="-5")
    open_account(client, "main", "c", maximum_balance="100000")
    bodies = [transaction("a", "b", 100), transaction("a", "b", 50), two_lines(("a", "b", 3), ("c", "a", 2))]
    bodies += [transaction("a", "b", 9, effective_at=PAST)]
    bodies += [transaction("c", "b", n + 1) for n in range(3)]
    assert [201] * 7 == [post(client, "main", body).status_code for body in bodies]
    assert 422 == post(client, "main", transaction("b", "a", 10**6)).status_code
    open_account(client, "main", "unused")
    for operation, body in _holds_and_reversals(clock):
        clock.advance(1)
        path = f"/v1/ledgers/main/transactions{operation}"
        answer = client.post(path, json=body, headers={"Idempotency-Key": new_key()})
        assert 201 == answer.status_code, answer.text
    closing = {"before": "2019-01-01T00:00:00Z", "reason": "audited"}
    headers = {"Idempotency-Key": new_key()}
    assert 201 == client.post("/v1/ledgers/main/closings", json=closing, headers=headers).status_code
    open_account(client, "main", "d")
    assert 201 == post(client, "main", transaction("c", "d")).status_code
    assert 201 == post(client, "main", transaction("a", "c", 7, pending=True)).status_code
    voided = client.post("/v1/ledgers/main/transactions/38/void", json={}, headers={"Idempotency-Key": new_key()})
    assert 201 == voided.status_code, voided.text


def two_lines(*moves: tuple[str, str, int]) -> dict[str, Any]:
    return {"postings": [posting for move in moves for posting in transaction(*move)["postings"]]}


def _holds_and_reversals(clock: Clock) -> Iterator[tuple[str, dict[str, Any]]]:
    def hold(*moves: tuple[str, str, int], hours: int | None = None) -> tuple[str, dict[str, Any]]:
        expiry = {} if hours is None else {"expires_at": (clock.now + timedelta(hours=hours)).isoformat()}
        return "", two_lines(*moves) | {"pending": True} | expiry

    def capture(hold: int, *amounts: tuple[int, int], **changes: Any) -> tuple[str, dict[str, Any]]:
        said = {"amounts": [{"posting": n, "amount": str(amount)} for n, amount in amounts]} if amounts else {}
        return f"/{hold}/capture", said | changes

    yield hold(("a", "b", 100), hours=1)
    yield capture(13, (0, 30), remainder="keep")
    yield capture(13, (0, 20), remainder="keep")
    yield hold(("a", "b", 40), ("c", "a", 5))
    yield capture(16, (0, 25))
    yield hold(("a", "b", 7))
    yield "/18/void", {}
    yield "", transaction("c", "b", 2)
    yield "/20/reverse", {}
    yield "/10/reverse", {}
    yield "/17/reverse", {}
    yield hold(("a", "b", 11), ("c", "b", 3), hours=10)
    yield capture(24, (0, 11), remainder="keep")
    yield hold(("a", "b", 9))
    yield hold(("a", "b", 6), hours=1)
    yield capture(27)
    yield hold(("a", "b", 4))
    yield capture(29, effective_at=PAST)
    clock.advance(7200)
    yield "", transaction("a", "b")
    yield hold(("a", "b", 4))
    yield capture(33)


FAULTS: dict[str, tuple[str, set[str]]] = {
    "an event is missing in the log": (
        """insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
            select 1, sequence + 2, 'ledger_changed', recorded_at, 'x', '{}' from heads where ledger_id = 1;
            insert into idempotency_keys select 1, 'k', 'f', sequence + 2 from heads where ledger_id = 1;
            update heads set sequence = sequence + 2 where ledger_id = 1""",
        {"sequence_gapless"},
    ),
    "a recorded time falls": (
        "update events set recorded_at = recorded_at - interval '1 year' where sequence = 3",
        {"recorded_at_never_falls"},
    ),
    "the head is ahead of the log": ("update heads set sequence = sequence + 1", {"head_is_last_event"}),
    "the head is behind the time of the log": (
        "update heads set recorded_at = recorded_at - interval '1 second'",
        {"head_is_last_event"},
    ),
    "one side of a transaction is of another asset": (
        "update entries set asset = 'EUR/2' where sequence = 6 and debit",
        {"entries_sum_to_zero"},
    ),
    "both sides of a transaction are of another asset": (
        "update entries set asset = 'EUR/2' where sequence = 6",
        {"entries_sum_to_zero"},
    ),
    "a posting has become more than its entries": (
        "update events set postings = regexp_replace(postings, '[0-9]+$', '777') where sequence = 6",
        {"postings_have_entries", "entries_have_postings", "log_rebuilds_accounts"},
    ),
    "a posting is not to be read": (
        "update events set postings = 'x' where sequence = 6",
        {"postings_have_entries", "entries_have_postings", "log_rebuilds_accounts"},
    ),
    "a posting is gone from its event": (
        "update events set postings = split_part(postings, ';', 1) where sequence = 7",
        {"entries_have_postings", "log_rebuilds_accounts"},
    ),
    "an entry has no event": (
        """insert into entries values (1, 99, 1, 999, true, 'USD/2', 1, 0, 1, now()),
                                      (1, 99, 2, 999, false, 'USD/2', 1, 0, 0, now())""",
        {"entries_have_events"},
    ),
    "an event of a transaction has gone": (
        "update events set postings = null where sequence = 6",
        {"entries_have_events", "log_rebuilds_accounts"},
    ),
    "a balance does not follow": (
        "update entries set balance = balance + 1 where account_id = 2 and version = 3",
        {"balances_run"},
    ),
    "the latest effective time is not the latest": (
        """update entries set latest_effective = latest_effective + interval '1 hour'
            where account_id = 4 and version = (select max(version) from entries where account_id = 4);
           update accounts set latest_effective = latest_effective + interval '1 hour' where account_id = 4""",
        {"latest_effective_runs"},
    ),
    "a late entry has no row beside it": ("delete from late_entries where account_id = 2", {"late_entries_match"}),
    "a late entry has another amount": (
        "update late_entries set amount = amount + 1 where account_id = 2",
        {"late_entries_match"},
    ),
    "an entry in time has a row for late ones": (
        f"insert into late_entries values (1, 2, '{PAST}', 1, 5)",
        {"late_entries_match"},
    ),
    "a counter has too much": (
        "update accounts set debits_posted = debits_posted + 1, credits_posted = credits_posted + 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "a pending counter moved by itself": (
        "update accounts set debits_pending = 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "a counter of pending credits moved by itself": (
        "update accounts set credits_pending = credits_pending + 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "a version counts too much": (
        "update accounts set version = version + 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "an account's status was changed by hand": (
        "update accounts set status = 'frozen' where path = 'a'",
        {"configuration_is_last_event", "log_rebuilds_accounts"},
    ),
    "an account names the event of another": (
        "update accounts set configured_by = 3 where path = 'a'",
        {"configuration_is_last_event"},
    ),
    "a configuration is not to be read": (
        "update events set configuration = '{}' where sequence = 12",
        {"limits_hold", "configuration_is_last_event", "log_rebuilds_accounts"},
    ),
    "an account is past its limits": (
        """alter table accounts drop constraint accounts_minimum_check;
           update accounts set minimum_balance = 100000 where path = 'a';
           update events set configuration = configuration || '{"minimum_balance": "100000"}' where sequence = 2""",
        {"limits_hold"},
    ),
    "an account is past its maximum": (
        """alter table accounts drop constraint accounts_maximum_check;
           update accounts set maximum_balance = 1 where path = 'a';
           update events set configuration = configuration || '{"maximum_balance": "1"}' where sequence = 2""",
        {"limits_hold"},
    ),
    "an account is past its maximum only with what is pending": (
        """alter table accounts drop constraint accounts_maximum_check;
           update accounts set maximum_balance = (select max(balance) from entries where account_id = 3)
            where path = 'b';
           update events set configuration = configuration || jsonb_build_object(
                  'maximum_balance', (select max(balance)::text from entries where account_id = 3))
            where sequence = 3""",
        {"limits_hold"},
    ),
    "an account is not in the log": (
        """insert into accounts select 1, 1, 'z', asset, normal_side, status, null, null, 0, 0, 0, 0, 0, 1, 1,
                                       '1900-01-01 00:00:00+00' from accounts where path = 'b'""",
        {"configuration_is_last_event", "log_rebuilds_accounts"},
    ),
    "an account has gone": (
        "delete from accounts where path = 'unused'",
        {"log_rebuilds_accounts"},
    ),
    "a transaction lies in closed books": (
        """update events set configuration = '{"closed_before": "2999-01-01T00:00:00+00:00"}'
            where kind = 'period_closed';
           update heads set closed_before = '2999-01-01'""",
        {"closed_periods_hold"},
    ),
    "a hold lies in a closed period": (
        f"""update events set configuration = '{{"closed_before": "2021-01-01T00:00:00+00:00"}}'
             where kind = 'period_closed';
            update heads set closed_before = '2021-01-01';
            update events set effective_at = '{PAST}' where sequence = 38""",
        {"closed_periods_hold"},
    ),
    "a capture lies in a closed period": (
        """delete from accounts where path = 'unused';
           update events set kind = 'period_closed', account_id = null,
                  configuration = '{"closed_before": "2020-06-01T00:00:00+00:00"}' where sequence = 12""",
        {"closed_periods_hold"},
    ),
    "the head has other books closed than the log": (
        "update heads set closed_before = null",
        {"closed_periods_hold"},
    ),
    "two keys have one effect": (
        f"insert into idempotency_keys select 1, 'second', 'f', {LAST}",
        {"one_effect_per_key"},
    ),
    "a key has an effect that is not there": (
        "insert into idempotency_keys select 1, 'second', 'f', 0",
        {"one_effect_per_key"},
    ),
    "an effect has lost its key": ("delete from idempotency_keys where sequence = 6", {"effects_have_keys"}),
    "a trigger sleeps": (f"{AWAKE}; alter table entries disable trigger entries_append_only", {"triggers_stand"}),
    "a trigger sleeps in a replica": (
        f"{AWAKE}; alter table entries enable trigger entries_append_only",
        {"triggers_stand"},
    ),
    "a trigger is gone": (f"{AWAKE}; drop trigger entries_zero_sum on entries", {"triggers_stand"}),
    "a line of a hold has captured more than its captures": (
        "update hold_lines set captured = captured + 1, released = released - 1 where hold = 13",
        {"holds_are_fold_of_events"},
    ),
    "a line of a live hold has captured less than its captures": (
        "update hold_lines set captured = captured - 1 where hold = 24 and line = 0",
        {"holds_are_fold_of_events"},
    ),
    "a line of a live hold has captured more than its captures": (
        "update hold_lines set captured = 1 where hold = 24 and line = 1",
        {"holds_are_fold_of_events"},
    ),
    "a line of a hold is of another account": (
        "update hold_lines set debit_id = 4 where hold = 26",
        {"holds_are_fold_of_events"},
    ),
    "a line of a hold has gone": (
        "delete from hold_lines where hold = 16 and line = 1",
        {"holds_are_fold_of_events"},
    ),
    "a line of an ended hold has not ended": (
        "update hold_lines set ended = false where hold = 16 and line = 1",
        {"holds_are_fold_of_events"},
    ),
    "a hold ended another way": ("update holds set status = 'captured' where hold = 18", {"holds_are_fold_of_events"}),
    "a live hold has ended": (
        """update holds set status = 'voided' where hold = 26;
           update hold_lines set released = held, ended = true where hold = 26""",
        {"holds_are_fold_of_events"},
    ),
    "a hold no longer expires": ("update holds set expires_at = null where hold = 24", {"holds_are_fold_of_events"}),
    "a hold has gone": (
        "delete from holds where hold = 26; delete from hold_lines where hold = 26",
        {"holds_are_fold_of_events"},
    ),
    "a hold is not in the log": ("insert into holds values (1, 5, 'pending', null, 0)", {"holds_are_fold_of_events"}),
    "lines of a hold are not in the log": (
        "insert into hold_lines values (1, 5, 0, 2, 3, 1, 0, 0, false)",
        {"holds_are_fold_of_events"},
    ),
    "what is captured was not held": (
        "update events set subject = 5 where sequence = 14",
        {"holds_are_fold_of_events", "captured_and_released_within_held"},
    ),
    "what is captured had ended": (
        "update events set subject = 18 where sequence = 34",
        {"holds_are_fold_of_events", "pending_is_what_is_held"},
    ),
    "a capture names the line of other accounts": (
        "update events set postings = regexp_replace(postings, ' 0;(.*) 1$', ' 1;\\1 0') where sequence = 17",
        {"holds_are_fold_of_events", "captured_and_released_within_held"},
    ),
    "a void has a time of its own": (
        f"update events set effective_at = '{PAST}' where sequence = 19",
        {"holds_are_fold_of_events"},
    ),
    "more was captured than was held": (
        """alter table hold_lines drop constraint hold_lines_held_check;
            alter table hold_lines drop constraint hold_lines_ended_check;
            update events set postings = regexp_replace(postings, ' 4 0 0$', ' 5 0 0') where sequence = 34;
            update entries set posted = 5, pending = -5 where sequence = 34;
            update entries set balance = balance + 1 where sequence >= 34
               and account_id in (select account_id from accounts where path in ('a', 'b'));
            update accounts set debits_posted = debits_posted + 1, debits_pending = debits_pending - 1 where path = 'a';
            update accounts set credits_posted = credits_posted + 1, credits_pending = credits_pending - 1
             where path = 'b';
            update hold_lines set captured = 5 where hold = 33""",
        {"captured_and_released_within_held", "pending_is_what_is_held"},
    ),
    "less was released than remained": (
        """alter table hold_lines drop constraint hold_lines_ended_check;
           update events set postings = regexp_replace(postings, ' 0 7 0$', ' 0 6 0') where sequence = 19;
           update entries set pending = -6 where sequence = 19;
           update accounts set debits_pending = debits_pending + 1 where path = 'a';
           update accounts set credits_pending = credits_pending + 1 where path = 'b';
           update hold_lines set released = 6 where hold = 18""",
        {"captured_and_released_within_held", "pending_is_what_is_held"},
    ),
    "one hold released too much and another too little, of the same debited account": (
        """alter table hold_lines drop constraint hold_lines_held_check;
           alter table hold_lines drop constraint hold_lines_ended_check;
           update events set postings = regexp_replace(postings, ' 0 7 0$', ' 0 8 0') where sequence = 19;
           update events set postings = regexp_replace(postings, ' 0 7 0$', ' 0 6 0') where sequence = 39;
           update entries set pending = -8 where sequence = 19;
           update entries set pending = -6 where sequence = 39;
           update accounts set credits_pending = credits_pending - 1 where path = 'b';
           update accounts set credits_pending = credits_pending + 1 where path = 'c';
           update hold_lines set released = 8 where hold = 18;
           update hold_lines set released = 6 where hold = 38""",
        {"captured_and_released_within_held", "pending_is_what_is_held"},
    ),
    "an expiry came before its time": (
        """update events set expires_at = expires_at + interval '1 year' where sequence = 13;
           update holds set expires_at = expires_at + interval '1 year' where hold = 13""",
        {"expired_when_due"},
    ),
    "what expired had no time to expire at": (
        """update events set expires_at = null where sequence = 13;
           update holds set expires_at = null where hold = 13""",
        {"expired_when_due"},
    ),
    "somebody asked for an expiry": (
        "update events set actor = 'operator' where kind = 'transaction_expired'",
        {"expired_when_due"},
    ),
    "a hold was captured after its time": (
        """update events set expires_at = (select recorded_at from events where sequence = 28) where sequence = 27;
           update holds set expires_at = (select recorded_at from events where sequence = 28) where hold = 27""",
        {"expired_when_due"},
    ),
    "a hold outlives its time": (
        """update events set expires_at = (select recorded_at from events where sequence = 28) where sequence = 24;
           update holds set expires_at = (select recorded_at from events where sequence = 28) where hold = 24;
           update heads set next_expiry = (select expires_at from holds where hold = 24)""",
        {"expired_when_due"},
    ),
    "the head expects no expiry": ("update heads set next_expiry = null", {"next_expiry_not_late"}),
    "the head expects an expiry late": (
        "update heads set next_expiry = next_expiry + interval '1 microsecond'",
        {"next_expiry_not_late"},
    ),
    "a reversal names another transaction": (
        "update events set subject = 5 where sequence = 21",
        {"reversals_mirror"},
    ),
    "a reversal names a hold": ("update events set subject = 29 where sequence = 21", {"reversals_mirror"}),
    "a reversal names a reversal": ("update events set subject = 22 where sequence = 23", {"reversals_mirror"}),
    "a reversal names what is not there": ("update events set subject = 999 where sequence = 21", {"reversals_mirror"}),
    "a transaction is reversed twice": (
        "drop index events_reversal_key; update events set subject = 20 where sequence = 22",
        {"one_reversal_each"},
    ),
    "an entry keeps more pending than its event says": (
        "update entries set pending = pending + 1 where sequence = 13",
        {"postings_have_entries", "entries_have_postings", "counters_are_fold_of_entries"},
    ),
    "one side of a hold keeps more pending than the other": (
        "update entries set pending = pending + 1 where sequence = 13 and debit",
        {"entries_sum_to_zero", "postings_have_entries", "counters_are_fold_of_entries"},
    ),
    "an entry that posts nothing moves a balance": (
        "update entries set balance = balance + 1 where sequence = 13 and debit",
        {"balances_run"},
    ),
    "an entry that posts nothing is late": (
        f"""insert into late_entries
            select 1, account_id, '{PAST}', version, 0 from entries where sequence = 13 and debit""",
        {"late_entries_match"},
    ),
    "an expiry has a key": (
        "insert into idempotency_keys select 1, 'k', 'f', 31",
        {"one_effect_per_key"},
    ),
}
# What of these a range cannot see.
SEEN_BY_THE_WHOLE_ALONE = {
    "a transaction lies in closed books",
    "the head has other books closed than the log",
    "an entry in time has a row for late ones",
    "an entry that posts nothing is late",
    "a line of a live hold has captured more than its captures",
    "a live hold has ended",
    "a hold is not in the log",
    "lines of a hold are not in the log",
}
