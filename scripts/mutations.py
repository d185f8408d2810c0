"""Plant bugs in the ledger, one at a time, and see which test catches each.

    uv run python -m scripts.mutations              all of them: about half an hour on two cores
    uv run python -m scripts.mutations --only expiry

Each bug is planted in a copy of the working tree, whose tests then run until the first one fails. A bug that no test
catches, or that can no longer be planted because the code has changed, fails the run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/test_rules.py",
    "tests/test_deciding.py",
    "tests/test_queue.py",
    "tests/test_model.py",
    "tests/test_configurations.py",
    "tests/test_holds.py",
    "tests/test_expiries.py",
    "tests/test_reversals.py",
    "tests/test_random_histories.py",
    "tests/test_idempotency.py",
    "tests/test_refusals.py",
    "tests/test_batches.py",
    "tests/test_history.py",
    "tests/test_finding.py",
    "tests/test_tables.py",
    "tests/test_writer.py",
    "tests/test_writer_in_doubt.py",
    "tests/test_feed.py",
    "tests/test_concurrency.py",
    "tests/test_keys.py",
    "tests/test_keys_in_doubt.py",
    "tests/test_tokens.py",
    "tests/test_key_matrix.py",
)
SECONDS_MAX = 900


@dataclass(frozen=True)
class Bug:
    """What stands in a file, and what a careless hand makes of it."""

    name: str
    file: str
    right: str
    wrong: str
    # A second place in the same file.
    and_also: tuple[str, str] | None = None
    # What is to catch it, where it is not among the tests of the ledger.
    tests: tuple[str, ...] = ()


BUGS = (
    Bug(
        "the wrong sign on credit-normal accounts",
        "app/ledger/values.py",
        "        return self.credits_posted - self.debits_posted",
        "        return self.debits_posted - self.credits_posted",
    ),
    Bug(
        "a minimum checked against posted instead of available",
        "app/ledger/movements.py",
        "after.available < minimum",
        "after.posted < minimum",
    ),
    Bug(
        "a maximum that ignores incoming holds",
        "app/ledger/movements.py",
        "after.expected > maximum",
        "after.posted > maximum",
    ),
    Bug(
        "an overflow that counts what is posted alone",
        "app/ledger/movements.py",
        "max(after.debits_posted + after.debits_pending, after.credits_posted + after.credits_pending)",
        "max(after.debits_posted, after.credits_posted)",
    ),
    Bug(
        "limits checked after each posting instead of the whole transaction",
        "app/ledger/movements.py",
        "        self.entries.append(entry)\n",
        "        self.entries.append(entry)\n        check_limits(self.accounts, self.book)\n",
    ),
    Bug(
        "a late entry without its row",
        "app/ledger/movements.py",
        "late_effective=effective_at if late else None",
        "late_effective=None",
    ),
    Bug(
        "a hold that makes later entries late",
        "app/ledger/movements.py",
        "self.effective_at if posted else before.latest_effective",
        "self.effective_at",
    ),
    Bug(
        "an expired hold still counted",
        "app/ledger/writer.py",
        "for hold in book.due:",
        "for hold in book.due[:0]:",
    ),
    Bug(
        "an expiry one instant late",
        "app/ledger/book.py",
        "status = 'pending' and expires_at <= $6",
        "status = 'pending' and expires_at < $6",
    ),
    Bug(
        "a next expiry that is late",
        "app/ledger/book.py",
        "self.next_expiry = min(hold.expires_at,",
        "self.next_expiry = max(hold.expires_at,",
    ),
    Bug(
        "a present-tense read that does not look for due holds",
        "app/ledger/queries.py",
        "row.next_expiry <= now",
        "False",
    ),
    Bug(
        "commands decided while more holds are due",
        "app/ledger/writer.py",
        "if book.next_expiry is None or book.next_expiry > now:",
        "if True:",
    ),
    Bug(
        "a capture that forgets its release",
        "app/ledger/holds.py",
        "pending=-posted - released,",
        "pending=-posted,",
    ),
    Bug(
        "a capture that takes more than is held",
        "app/ledger/holds.py",
        "        if amount > remaining:",
        "        if amount > hold.lines[number].held:",
    ),
    Bug(
        "a capture that ends the hold although the remainder is kept",
        "app/ledger/holds.py",
        '"pending" if any(kept.values()) else "captured"',
        '"captured"',
    ),
    Bug(
        "a capture into closed books",
        "app/ledger/holds.py",
        "    hold = _get_pending(command.subject, book)\n    check_effective(command.effective_at, now=now)\n"
        "    check_period(command.effective_at, book)\n",
        "    hold = _get_pending(command.subject, book)\n    check_effective(command.effective_at, now=now)\n",
    ),
    Bug(
        "a void that a frozen account refuses",
        "app/ledger/holds.py",
        "    hold = _get_pending(command.subject, book)\n    check_reference(command.reference, book)\n    nothing",
        "    hold = _get_pending(command.subject, book)\n"
        "    check_open((path for line in hold.lines for path in (line.debit_account, line.credit_account)), book)\n"
        "    check_reference(command.reference, book)\n    nothing",
    ),
    Bug(
        "a reversal that does not swap the sides",
        "app/ledger/holds.py",
        "movement.move(debit=each.credit_account, credit=each.debit_account, posted=each.amount)",
        "movement.move(debit=each.debit_account, credit=each.credit_account, posted=each.amount)",
    ),
    Bug(
        "a second reversal",
        "app/ledger/holds.py",
        "    if command.subject in book.reversed:\n        raise AlreadyReversed()\n",
        "",
    ),
    Bug(
        "an account closed with a live hold on it",
        "app/ledger/configurations.py",
        "(before.posted or before.debits_pending or before.credits_pending)",
        "before.posted",
    ),
    Bug(
        "a version that is held against the account in the middle of the transaction",
        "app/ledger/rules.py",
        "move.expected_debit_version not in (None, book.accounts[move.debit_account].version)",
        "move.expected_debit_version not in (None, book.accounts[move.debit_account].version + n)",
    ),
    Bug(
        "a recorded time that may fall",
        "app/ledger/book.py",
        "return max(now, self.head.recorded_at)",
        "return now",
    ),
    Bug(
        "an atomic batch that is not taken back",
        "app/ledger/deciding.py",
        "    except BooksRefuse as refusal:\n        if before is not None:\n            book.restore(before)\n",
        "    except BooksRefuse as refusal:\n",
    ),
    Bug(
        "a refusal that is not frozen with its key",
        "app/ledger/deciding.py",
        "        book.keep(KeyRow(submission.key, submission.fingerprint, book.sequence, freeze(refusal)))\n",
        "",
    ),
    Bug(
        "a key that forgets what it was used for",
        "app/ledger/deciding.py",
        "if known.fingerprint != submission.fingerprint:",
        "if False:",
    ),
    Bug(
        "a key stored after the commit",
        "app/ledger/journal.py",
        "        *_columns(6, map(_key_row, book.new_keys)),\n",
        "        *_columns(6, ()),\n",
        and_also=(
            "        return await connection.fetchval(WRITE_WITH_HOLDS, *arguments, timeout=timeout_s) is not None\n"
            "    return await connection.fetchval(WRITE, *arguments, timeout=timeout_s) is not None\n",
            "        written = await connection.fetchval(WRITE_WITH_HOLDS, *arguments, timeout=timeout_s) is not None\n"
            "    else:\n"
            "        written = await connection.fetchval(WRITE, *arguments, timeout=timeout_s) is not None\n"
            "    if written:\n"
            "        await connection.executemany(\n"
            '            f"insert into idempotency_keys values ({ledger_id}, $1, $2, $3, $4, $5, $6)",\n'
            "            [_key_row(row) for row in book.new_keys],\n"
            "        )\n"
            "    return written\n",
        ),
    ),
    Bug(
        "a write without the revision check",
        "app/ledger/journal.py",
        "where ledger_id = $1 and revision = $2 and identity",
        "where ledger_id = $1 and $2 = $2 and identity",
    ),
    Bug(
        "an answer before the commit",
        "app/ledger/writer.py",
        "        if not book.changes_nothing:\n",
        "        for submission, outcome in zip(batch, outcomes, strict=False):\n"
        "            submission.settle(outcome)\n"
        "        if not book.changes_nothing:\n",
    ),
    Bug(
        "a lost commit that is guessed to have failed",
        "app/ledger/writer.py",
        "                in_doubt = in_doubt or isinstance(error, WriteInDoubt)\n",
        "                raise StorageUnavailable() from error\n",
    ),
    Bug(
        "a cursor on time",
        "app/ledger/recorded.py",
        "    query = select_events(ledger_id)\n    rows, _ = await read_page(",
        "    since = select(events.c.recorded_at).where(events.c.ledger_id == ledger_id, events.c.sequence == after)\n"
        "    query = select_events(ledger_id).where((events.c.recorded_at > since.scalar_subquery()) | (after == 0))\n"
        "    rows, _ = await read_page(",
    ),
    Bug(
        "a past that counts what was recorded later",
        "app/ledger/history.py",
        "and version > effective.version and version <= known.version",
        "and version > effective.version",
    ),
    Bug(
        "a statement that shows holds",
        "app/ledger/queries.py",
        ", entries.c.posted > 0)",
        ")",
    ),
    Bug(
        "access: a prefix that is not of whole segments",
        "app/ledger/scopes.py",
        'path.startswith(f"{self.prefix}:")',
        "path.startswith(self.prefix)",
    ),
    Bug(
        "access: a ledger that only the path is asked about",
        "app/ledger/scopes.py",
        "if not scope.has_ledger(ledger) or not all(map(scope.covers, command.paths)):",
        "if not all(map(scope.covers, command.paths)):",
    ),
    Bug(
        "access: accounts of a body that nobody asks about",
        "app/ledger/scopes.py",
        "if not scope.has_ledger(ledger) or not all(map(scope.covers, command.paths)):",
        "if not scope.has_ledger(ledger):",
    ),
    Bug(
        "access: a batch whose first transaction speaks for all",
        "app/ledger/scopes.py",
        "return command.transactions",
        "return command.transactions[:1]",
    ),
    Bug(
        "access: holds that are made with post",
        "app/ledger/scopes.py",
        '("hold" if each.pending else "post")',
        '"post"',
    ),
    Bug(
        "access: what a command is about, unasked",
        "app/ledger/deciding.py",
        "        check_subject(submission.scope, submission.command, book)\n",
        "",
    ),
    Bug(
        "access: a transaction outside that is forbidden",
        "app/ledger/scopes.py",
        "            raise TransactionNotFound()\n",
        "            raise Forbidden()\n",
    ),
    Bug(
        "access: amounts that only the books know, unasked",
        "app/ledger/scopes.py",
        "if not all(map(scope.allows, _amounts(command, subject, book))):",
        "if False:",
    ),
    Bug(
        "access: a replay that shows everything",
        "app/ledger/writer.py",
        "            check_replay(submission.scope, receipt.results)\n",
        "            pass\n",
    ),
    Bug(
        "access: idempotency keys shared with those outside the prefix",
        "app/deps.py",
        "named = key if prefix is None else",
        'named = key if prefix != "" else',
    ),
    Bug(
        "access: idempotency keys that belong to a secret",
        "app/deps.py",
        'named = key if prefix is None else f"{prefix}',
        "named = key if prefix is None else f\"{request.scope['caller'].identity}",
    ),
    Bug(
        "access: references that tell of others",
        "app/ledger/scopes.py",
        'if scope.prefix is not None and not all(each.startswith(f"{scope.prefix}:")',
        'if False and not all(each.startswith(f"{scope.prefix}:")',
    ),
    Bug(
        "access: filters that lead outside",
        "app/ledger/scopes.py",
        'if scope.prefix is not None and not scope.covers(filters.get(name) or ""):',
        "if False:",
    ),
    Bug(
        "access: a transaction that is shown to who may not see it",
        "app/ledger/transactions.py",
        " or not covers_transaction(scope, event):",
        ":",
    ),
    Bug(
        "access: a list that shows what lies outside",
        "app/ledger/finding.py",
        'WITHIN if within else ""',
        '""',
    ),
    Bug(
        "access: holds that lie outside, listed",
        "app/ledger/transactions.py",
        '_POSTINGS_OF, WITHIN, " order',
        '_POSTINGS_OF, " order',
    ),
    Bug(
        "access: a whole ledger for a prefix",
        "app/ledger/scopes.py",
        " or (whole_ledger and scope.prefix is not None):",
        ":",
    ),
    Bug(
        "access: keys that are trusted for ever",
        "app/access/known_keys.py",
        "STALE_SECONDS = 1.0",
        "STALE_SECONDS = 1e9",
    ),
    Bug(
        "access: a revocation that is passed over",
        "app/access/known_keys.py",
        "            if change.revoked:",
        '            if change.name == "":',
    ),
    Bug(
        "access: keys that never expire",
        "app/access/known_keys.py",
        "now < self.expires_at",
        "bool(now)",
    ),
    Bug(
        "access: a key that waits out its revocation",
        "app/api/events.py",
        "    await identify(request, read_headers(request))\n",
        "",
    ),
    Bug(
        "access: a secret that is kept",
        "app/access/secrets.py",
        "return sha256(secret).digest()",
        'return secret[:32].ljust(32, b"0")',
    ),
    Bug(
        "access: an address that a client can make up",
        "app/server.py",
        "proxy_headers=bool(settings.trusted_proxies.strip()),\n        forwarded_allow_ips=settings.trusted_proxies,",
        'proxy_headers=True,\n        forwarded_allow_ips="*",',
    ),
    Bug(
        "access: a proxy whose guessers lock others out",
        "app/api/edge.py",
        "    caller: Caller | None = request.app.state.authentication.find(secret)\n",
        "    caller: Caller | None = None\n",
    ),
    Bug(
        "access: a token for another audience",
        "app/access/tokens.py",
        "                audience=self._audience,\n",
        "                audience=None,\n",
    ),
    Bug(
        "access: a token of another issuer",
        "app/access/tokens.py",
        "                issuer=self._issuer,\n",
        "",
    ),
    Bug(
        "access: a token that has expired",
        "app/access/tokens.py",
        "now >= expires + LEEWAY_SECONDS or ",
        "",
    ),
    Bug(
        "access: a known token that has expired",
        "app/access/tokens.py",
        "if known is None or not self._clock().timestamp() < known[1] + LEEWAY_SECONDS:",
        "if known is None:",
    ),
    Bug(
        "access: a token whose time has not come",
        "app/access/tokens.py",
        " or any(now < begin - LEEWAY_SECONDS for begin in begins)",
        "",
    ),
    Bug(
        "access: critical headers that are passed over",
        "app/access/tokens.py",
        '"crit" in header or ',
        "",
    ),
    Bug(
        "access: secrets among the issuer's keys",
        "app/access/issuer_keys.py",
        '("RS256", "RS384",',
        '("HS256", "RS256", "RS384",',
    ),
    Bug(
        "access: a key of 1024 bits",
        "app/access/issuer_keys.py",
        " and not key.Algorithm.check_key_length(key.key)",
        "",
    ),
    Bug(
        "access: a bound that is misspelt",
        "app/access/tokens.py",
        'extra="forbid"',
        'extra="ignore"',
    ),
    Bug(
        "access: a token that speaks for the operator",
        "app/access/tokens.py",
        " or label in RESERVED_LABELS:",
        ":",
    ),
    Bug(
        "access: tokens of a key that is gone",
        "app/access/issuer_keys.py",
        "            self._changed()\n",
        "            pass\n",
    ),
    Bug(
        "access: an issuer that is asked for every invented name",
        "app/access/issuer_keys.py",
        "UNKNOWN_SECONDS = 30.0",
        "UNKNOWN_SECONDS = 0.0",
    ),
    Bug(
        "operator: readiness that does not fall first",
        "app/server.py",
        '            self.server_state.stopping = True\n            self._tell("announce")\n',
        "            self.server_state.stopping = True\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: a listener that closes before the proxy knows",
        "app/server.py",
        "self._drained = now + self.config.settings.drain_s",
        "self._drained = now",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: followers of the feed that a stop keeps waiting",
        "app/server.py",
        '            self._tell("release")\n',
        "            pass\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: a head on its way that is cut off",
        "app/server.py",
        "if self._is_ending or self._is_in_head():",
        "if self._is_ending:",
        and_also=("if not self._is_in_hand() and not self._is_in_head():", "if not self._is_in_hand():"),
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: a second signal that changes nothing",
        "app/server.py",
        "            self.should_exit = True\n            self._deadline = min(self._deadline, now + QUICK_SECONDS)\n",
        "            pass\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: writes that are in flight and not waited for",
        "app/server.py",
        "        while self.server_state.connections or self.server_state.tasks:\n",
        "        while False:\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: nobody told when the time is over",
        "app/server.py",
        '            self._tell("give_up")\n',
        "            pass\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: a Postgres without fsync that passes",
        "app/readiness.py",
        '"fsync_off": not found.fsync,',
        '"fsync_off": False,',
        tests=("tests/test_readiness.py",),
    ),
    Bug(
        "operator: an asynchronous commit that passes",
        "app/readiness.py",
        '"synchronous_commit_off": not found.synchronous_commit,',
        '"synchronous_commit_off": False,',
        tests=("tests/test_readiness.py",),
    ),
    Bug(
        "operator: a later schema that is not served",
        "app/readiness.py",
        '(found.version or "") < MIGRATION_HEAD',
        '(found.version or "") != MIGRATION_HEAD',
        tests=("tests/test_readiness.py",),
    ),
    Bug(
        "operator: a look at the database for everyone who asks",
        "app/readiness.py",
        "if time.monotonic() - self._asked >= ANSWER_SECONDS:",
        "if True:",
        tests=("tests/test_readiness.py",),
    ),
    Bug(
        "operator: probes that an overload refuses",
        "app/load.py",
        ' and scope["path"] not in ALWAYS_ANSWERED',
        "",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: bodies that are counted for ever",
        "app/load.py",
        '            self.body_bytes -= scope.get("body_bytes", 0)\n',
        "",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: followers of the feed that take the place of work",
        "app/load.py",
        "        self.requests -= 1\n        try:\n            yield\n"
        "        finally:\n            self.requests += 1\n",
        "        yield\n",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: more connections than there is room for",
        "app/server.py",
        "if len(self.connections) > self.server_state.connections_max and not self._make_room():",
        "if False:",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: the last silent connection closed in place of the first",
        "app/server.py",
        "next(iter(self.server_state.silent), None)",
        "next(reversed(self.server_state.silent), None)",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: heads without an end",
        "app/server.py",
        "            self._arrived += len(piece)\n            if self._head is None:",
        "            if self._head is None:",
        tests=("tests/test_overload.py", "tests/test_edge.py"),
    ),
    Bug(
        "operator: refused bodies without an end",
        "app/server.py",
        "if self._arrived > REST_BYTES_MAX:",
        "if False:",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "operator: answers that nobody reads, kept",
        "app/server.py",
        "self._closing = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)",
        "pass",
        tests=("tests/test_overload.py",),
    ),
    Bug(
        "roles: a log that the service may rewrite",
        "app/models/grants.py",
        'REWRITTEN = frozenset({"heads",',
        'REWRITTEN = frozenset({"events", "heads",',
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: a key whose scope the service may rewrite",
        "app/models/grants.py",
        '"revoked_by", "revision")',
        '"revoked_by", "revision", "operations")',
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: what was granted before and is not taken away",
        "app/models/grants.py",
        '        yield f"revoke all on {_quoted(table)} from public, {quoted}"\n',
        "",
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: tables of its own, found before the real ones",
        "app/models/grants.py",
        "  execute format('revoke temporary on database %I from public, %I', current_database(), '{role}');\n",
        "",
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: one role for both, unsaid",
        "app/readiness.py",
        '"role_unrestricted": found.unrestricted',
        '"role_unrestricted": False',
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: a column too many, unsaid",
        "app/readiness.py",
        """and coalesce(n."column", c.attname) = c.attname""",
        "",
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: a column too few, unsaid",
        "app/readiness.py",
        """case when "column" is null then has_table_privilege(oid, privilege)
                             else has_column_privilege(oid, "column", privilege) end""",
        """case when "column" is null then has_table_privilege(oid, privilege) else true end""",
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "roles: migrations that run as the service",
        "app/settings.py",
        "if url := self.migration_database_url or self.database_url:",
        "if url := self.database_url or self.migration_database_url:",
        tests=("tests/test_roles.py",),
    ),
    Bug(
        "tls: an authority that vouches for any host",
        "app/tls.py",
        'context.check_hostname = mode == "verify-full"',
        "context.check_hostname = False",
        tests=("tests/test_tls.py",),
    ),
    Bug(
        "tls: migrations that verify nothing",
        "alembic/env.py",
        "connect_args=OWNER_ARGUMENTS | secured)",
        "connect_args=OWNER_ARGUMENTS)",
        tests=("tests/test_tls.py",),
    ),
    Bug(
        "pooler: settings that stay with a server",
        "app/pooled.py",
        "; set local {name}",
        "; set {name}",
        tests=("tests/test_pooler.py",),
    ),
    Bug(
        "pooler: a look at the keys without its settings",
        "app/db.py",
        "self._share(self._keys, KEY_SETTINGS)",
        "self._share(self._keys, {})",
        tests=("tests/test_pooler.py",),
    ),
    Bug(
        "holds: a capture rejected for any frozen account of its hold",
        "app/ledger/holds.py",
        "    return [line for line in hold.lines if line.posting in named]",
        "    return list(hold.lines)",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "holds: a capture of all that counts postings captured before",
        "app/ledger/holds.py",
        "        return [line for line in hold.lines if line.remaining]",
        "        return list(hold.lines)",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "holds: a capture that names the frozen account in the order of its amounts",
        "app/ledger/holds.py",
        "    return [line for line in hold.lines if line.posting in named]",
        "    lines = {line.posting: line for line in hold.lines}\n"
        "    return [lines[number] for number, _ in command.amounts if number in lines]",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "holds: a capture that posts to a frozen account",
        "app/ledger/holds.py",
        "check_not_frozen((path for line in to_post for path",
        "check_not_frozen((path for line in to_post[:0] for path",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "storage: an I/O error of Postgres that is not temporary",
        "app/db.py",
        "    asyncpg.exceptions.PostgresSystemError,\n",
        "",
        tests=("tests/test_io_errors.py",),
    ),
    Bug(
        "storage: damaged data taken for temporary",
        "app/db.py",
        "    asyncpg.exceptions.PostgresSystemError,\n",
        "    asyncpg.exceptions.PostgresSystemError,\n    asyncpg.exceptions.InternalServerError,\n",
        tests=("tests/test_io_errors.py",),
    ),
    Bug(
        "sweep: the latest due first",
        "app/ledger/expiry.py",
        ".order_by(*place)",
        ".order_by(*(column.desc() for column in place))",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: ends at the first rejection",
        "app/ledger/expiry.py",
        "        except Exception as error:\n            self._pause(ledger_id)",
        "        except TimeoutError as error:\n            self._pause(ledger_id)",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: one ledger at a time",
        "app/ledger/expiry.py",
        "asyncio.Semaphore(max(1, min(AT_ONCE_MAX, connections // 2)))",
        "asyncio.Semaphore(1)",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: takes all connections of the writer",
        "app/ledger/expiry.py",
        "connections // 2",
        "connections",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: a slow ledger begun again while it is under way",
        "app/ledger/expiry.py",
        "if ledger_id in self._under_way or self._is_paused(ledger_id):",
        "if self._is_paused(ledger_id):",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: no ledgers but those of the first page",
        "app/ledger/expiry.py",
        "            if len(rows) < LEDGERS_MAX:\n                return\n",
        "            return\n",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "sweep: a failing ledger begun in every sweep",
        "app/ledger/expiry.py",
        "last.seconds * 2",
        "last.seconds * 1",
        tests=("tests/test_sweep.py",),
    ),
    Bug(
        "a silent BEGIN, COMMIT or ROLLBACK is waited for without end",
        "app/db.py",
        '            "command_timeout": timeout_s,\n',
        "",
        tests=("tests/test_silent_connections.py::test_every_ledger_takes_writes_again",),
    ),
    Bug(
        "connections as old as a silent one stay in the pool",
        "app/db.py",
        "connection.driver_connection.is_closed() or connection.driver_connection.opened_at < self._silent_at",
        "connection.driver_connection.is_closed()",
        tests=("tests/test_silent_connections.py::test_what_is_idle_is_not_waited_for_one_after_the_other",),
    ),
    Bug(
        "connections in use beside a silent one get all of their time",
        "app/db.py",
        "if self._in_use.get(connection) is use:",
        "if False:",
        tests=("tests/test_silent_connections.py::test_what_is_in_use_beside_a_silent_connection_is_given_up_soon",),
    ),
    Bug(
        "a silent connection is rolled back",
        "app/connections.py",
        "if not timed_out(error):",
        "if True:",
        tests=("tests/test_silent_connections.py::test_a_silent_connection_is_not_rolled_back",),
    ),
    Bug(
        "a silent connection is waited for when it is closed",
        "app/connections.py",
        "        self.terminate()\n",
        "        await super().close(timeout=timeout)\n",
        tests=("tests/test_silent_connections.py::test_closing_waits_for_no_silent_connection",),
    ),
    Bug(
        "a read's connections as old as a silent one stay in the pool",
        "app/db.py",
        "context.invalidate_pool_on_disconnect = True",
        "pass",
        tests=("tests/test_silent_connections.py::test_a_read_waits_once_for_a_silent_connection",),
    ),
    Bug(
        "a migration that falls silent keeps its locks",
        "alembic/env.py",
        "        connection.exec_driver_sql(OWNER_LIMITS)\n",
        "",
        tests=("tests/test_silent_connections.py::test_a_migration_that_falls_silent_does_not_keep_its_locks",),
    ),
    Bug(
        "a process whose writer is stalled is ready",
        "app/readiness.py",
        "if self._writer.is_stalled:",
        "if False:",
        tests=("tests/test_silent_connections.py::test_readiness_knows_a_writer_that_makes_no_progress",),
    ),
    Bug(
        "a batch that nobody waits for is tried again",
        "app/ledger/writer.py",
        "if perf_counter() - work.began > self._deadline_s:",
        "if False:",
        tests=("tests/test_silent_connections.py::test_a_batch_that_nobody_waits_for_holds_up_nobody",),
    ),
    Bug(
        "identity: a batch that takes whatever ledger has the id",
        "app/ledger/book.py",
        ' or rows[0]["texts"][2] != ledger.identity:',
        ":",
        tests=(
            "tests/test_restore_under_processes.py::test_a_ledger_that_was_replaced_is_not_written_under_another_name",
        ),
    ),
    Bug(
        "identity: a write that goes by the revision alone",
        "app/ledger/journal.py",
        "and identity = $54 returning",
        "and $54::uuid is not null returning",
        tests=(
            "tests/test_restore_under_processes.py::test_a_ledger_that_is_replaced_between_read_and_write_is_not_written",
        ),
    ),
    Bug(
        "identity: a read that takes whatever ledger has the id",
        "app/ledger/queries.py",
        "if row is not None and row.identity == ledger.identity:",
        "if row is not None:",
        tests=("tests/test_restore_under_processes.py::test_a_read_finds_no_ledger_by_an_id_that_is_anothers",),
    ),
    Bug(
        "identity: a name that is never looked up again",
        "app/ledger/writer.py",
        "                self._directory.forget(name, ledger)\n",
        "",
        tests=("tests/test_restore_under_processes.py::test_a_ledger_that_was_replaced_is_looked_up_again",),
    ),
    Bug(
        "identity: a write in doubt that is done again elsewhere",
        "app/ledger/writer.py",
        "                if in_doubt:  # What was sent before",
        "                if False:  # What was sent before",
        tests=("tests/test_restore_under_processes.py::test_a_write_in_doubt_whose_ledger_is_replaced_stays_in_doubt",),
    ),
    Bug(
        "identity: a cursor that is good in any ledger of the name",
        "app/ledger/queries.py",
        "if cursor_identity is not None and not row",
        "if False and not row",
        tests=(
            "tests/test_restore_under_processes.py::test_a_cursor_is_of_one_ledger_and_one_without_an_identity_of_any",
        ),
    ),
    Bug(
        "identity: a cursor that names no ledger",
        "app/api/cursors.py",
        "    if page.identity is not None:\n",
        "    if False:\n",
        tests=(
            "tests/test_restore_under_processes.py::test_a_cursor_is_of_one_ledger_and_one_without_an_identity_of_any",
        ),
    ),
    Bug(
        "identity: a waiter that is not told of another log",
        "app/ledger/recorded.py",
        " or identity not in (None, found_identity):",
        ":",
        tests=("tests/test_restore_under_processes.py::test_a_waiter_whose_ledger_is_replaced_is_answered_by_the_net",),
    ),
    Bug(
        "identity: a net that looks at sequences alone",
        "app/ledger/feed.py",
        "if waiter.identity != identity or waiter.after > last:",
        "if waiter.after > last:",
        tests=("tests/test_restore_under_processes.py::test_a_waiter_whose_ledger_is_replaced_is_answered_by_the_net",),
    ),
    Bug(
        "identity: a net that does not see a log shortened",
        "app/ledger/feed.py",
        "if waiter.identity != identity or waiter.after > last:",
        "if waiter.identity != identity:",
        tests=("tests/test_restore_under_processes.py::test_a_waiter_whose_log_is_shortened_is_answered_by_the_net",),
    ),
    Bug(
        "identity: keys of before that stay known",
        "app/access/known_keys.py",
        "                self._keys.clear()\n",
        "",
        tests=("tests/test_restore_under_processes.py::test_what_a_process_knows_is_dropped_when_the_epoch_changes",),
    ),
    Bug(
        "identity: keys read on from a revision of before",
        "app/access/known_keys.py",
        "await self._read(connection, 0)",
        "await self._read(connection, self._revision)",
        and_also=("                self._revision = 0\n", ""),
        tests=("tests/test_restore_under_processes.py::test_what_a_process_knows_is_dropped_when_the_epoch_changes",),
    ),
    Bug(
        "identity: names of before that stay known",
        "app/access/known_keys.py",
        "                self._drop()\n",
        "",
        tests=("tests/test_restore_under_processes.py::test_what_a_process_knows_is_dropped_when_the_epoch_changes",),
    ),
    Bug(
        "identity: control data that has to be readable",
        "app/access/known_keys.py",
        "        except NO_CONTROL:\n            if not self._control:",
        "        except NO_CONTROL:\n            if self._control:",
        tests=(
            "tests/test_restore_under_processes.py::test_a_host_that_hides_the_control_data_of_its_server_serves_all_the_same",
        ),
    ),
    Bug(
        "identity: a replay read from a log that is no more",
        "app/ledger/recorded.py",
        "if last is None or last < first + count - 1:",
        "if False:",
        tests=(
            "tests/test_restore_under_processes.py::test_expiries_and_replays_of_a_replaced_ledger_are_not_those_of_another",
        ),
    ),
    Bug(
        "identity: a verification across a restore",
        "app/ledger/verification/rows.py",
        "if [self._identity] != [row.identity for row in await self.read(IDENTITY)]:",
        "if False:",
        tests=("tests/test_restore_under_processes.py::test_a_verification_across_a_restore_is_none",),
    ),
    Bug(
        "identity: one that may be changed",
        "alembic/versions/0008_identities.py",
        "or new.recorded_at < old.recorded_at or new.identity <> old.identity",
        "or new.recorded_at < old.recorded_at",
        tests=("tests/test_tables.py",),
    ),
    # The state of a batch: what a rejected atomic batch takes back, and what later commands of a group commit see.
    Bug(
        "book: holds of a rejected atomic batch that stay",
        "app/ledger/book.py",
        "dict(self.holds), dict(self.changed_holds)",
        "self.holds, self.changed_holds",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: references of a rejected atomic batch that stay",
        "app/ledger/book.py",
        "set(self.references)",
        "self.references",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: accounts of a rejected atomic batch that stay as it left them",
        "app/ledger/book.py",
        "state = dict(self.accounts)",
        "state = self.accounts",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: counters of a rejected atomic batch that are written",
        "app/ledger/book.py",
        "dict(self.moved)",
        "self.moved",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: entries of a rejected atomic batch that stay",
        "app/ledger/book.py",
        "del self.events[events:], self.entries[entries:]",
        "del self.events[events:]",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: a next expiry that a rejected atomic batch leaves behind",
        "app/ledger/book.py",
        "self.next_expiry, events, entries = rest",
        "_, events, entries = rest",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: an atomic batch that fails without a code and is not taken back",
        "app/ledger/deciding.py",
        "    except Exception as error:\n        if before is not None:\n            book.restore(before)\n",
        "    except Exception as error:\n",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: an idempotency key that its own group commit does not know",
        "app/ledger/book.py",
        "        self.keys[row.key] = row\n",
        "",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: a replay within a group commit that answers with the next event",
        "app/ledger/deciding.py",
        "book.events[place - 1 : place - 1 + count]",
        "book.events[place : place + count]",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: a hold that its own group commit does not know",
        "app/ledger/book.py",
        "self.holds[hold.hold] = self.changed_holds[hold.hold] = hold",
        "self.changed_holds[hold.hold] = hold",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: a reversal that its own group commit does not know",
        "app/ledger/book.py",
        "                self.reversed.add(decision.event.reverses)\n",
        "                pass\n",
        tests=("tests/test_deciding.py",),
    ),
    Bug(
        "book: a closing that its own group commit does not know",
        "app/ledger/book.py",
        "            self.closed_before = decision.event.closed_before\n",
        "            pass\n",
        tests=("tests/test_deciding.py",),
    ),
    # The published order of precedence.
    Bug(
        "precedence: a reference before the period",
        "app/ledger/rules.py",
        "    check_period(command.effective_at, book)\n    check_reference(command.reference, book)\n",
        "    check_reference(command.reference, book)\n    check_period(command.effective_at, book)\n",
        tests=("tests/test_rules.py",),
    ),
    Bug(
        "precedence: accounts before the reference",
        "app/ledger/rules.py",
        "    check_reference(command.reference, book)\n    _check_accounts(command.moves, book)\n",
        "    _check_accounts(command.moves, book)\n    check_reference(command.reference, book)\n",
        tests=("tests/test_rules.py",),
    ),
    Bug(
        "precedence: a frozen account before a closed one that a later posting names",
        "app/ledger/movements.py",
        '    for account in named:\n        if account.status == "closed":\n',
        "    for account in named:\n        check_not_frozen((account.path,), book)\n"
        '        if account.status == "closed":\n',
        tests=("tests/test_rules.py",),
    ),
    Bug(
        "precedence: limits before the accounts' versions",
        "app/ledger/rules.py",
        "        if move.expected_debit_version not in (None,",
        "        movement = Movement(book, book.next_sequence, EARLIEST)\n"
        "        movement.move(debit=move.debit_account, credit=move.credit_account, posted=move.amount)\n"
        "        check_limits(movement.accounts, book)\n"
        "        if move.expected_debit_version not in (None,",
        tests=("tests/test_rules.py",),
    ),
    Bug(
        "precedence: a status before the limits of an account's new configuration",
        "app/ledger/configurations.py",
        "    _check_limits(command, before)\n    _check_status(command.status, before)\n",
        "    _check_status(command.status, before)\n    _check_limits(command, before)\n",
        tests=("tests/test_configurations.py",),
    ),
    Bug(
        "precedence: the reference of a reversal before its period",
        "app/ledger/holds.py",
        "    check_period(command.effective_at, book)\n    check_reference(command.reference, book)\n    posted =",
        "    check_reference(command.reference, book)\n    check_period(command.effective_at, book)\n    posted =",
        tests=("tests/test_reversals.py",),
    ),
    # New limits and a new status, against what is pending.
    Bug(
        "limits: a new maximum that ignores what is pending",
        "app/ledger/configurations.py",
        "before.expected > command.maximum_balance",
        "before.posted > command.maximum_balance",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "limits: a new minimum that ignores what is pending",
        "app/ledger/configurations.py",
        "before.available < command.minimum_balance",
        "before.posted < command.minimum_balance",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "limits: an account closed while credits are pending on it",
        "app/ledger/configurations.py",
        " or before.credits_pending)",
        ")",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "limits: an account closed while debits are pending on it",
        "app/ledger/configurations.py",
        "before.debits_pending or ",
        "",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "limits: what is expected of a credit-normal account counts the wrong side",
        "app/ledger/values.py",
        'self.posted + (self.debits_pending if self.normal_side == "debit" else self.credits_pending)',
        "self.posted + self.debits_pending",
        tests=("tests/test_holds.py",),
    ),
    # The writer and its queue.
    Bug(
        "writer: overloaded answered for a write in doubt",
        "app/ledger/writer.py",
        "                if not in_doubt:\n",
        "                if True:\n",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "writer: a lost race that is tried again without the row lock",
        "app/ledger/writer.py",
        "self._cycle if attempt == 0 else self._cycle_behind_lock",
        "self._cycle",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "writer: a half of a failed batch that nobody answers",
        "app/ledger/writer.py",
        "                    await self._settle(ledger, batch[middle:])\n",
        "",
        tests=("tests/test_writer.py",),
    ),
    Bug(
        "writer: what a batch has taken answered as not done when the time is over",
        "app/ledger/writer.py",
        "            for submission in queue.taken:\n                submission.settle(OutcomeUnknown())\n",
        "            for submission in queue.taken:\n                submission.settle(Overloaded())\n",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "writer: what a batch has taken answered as not done at its deadline",
        "app/ledger/writer.py",
        "raise (Overloaded() if queue.withdraw(submission) else OutcomeUnknown()) from None",
        "queue.withdraw(submission)\n            raise Overloaded() from None",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "writer: a drain that waits for nothing",
        "app/ledger/writer.py",
        "            await asyncio.wait(tasks)\n",
        "            break\n",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "writer: a command whose caller left while it waited, carried out",
        "app/ledger/writer.py",
        "for submission in queue.take() if not submission.answer.done()]",
        "for submission in queue.take()]",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    Bug(
        "queue: a withdrawn command whose weight stays",
        "app/ledger/submissions.py",
        "        line.remove(submission)\n        self.weight -= submission.command.weight\n",
        "        line.remove(submission)\n",
        tests=("tests/test_queue.py",),
    ),
    Bug(
        "queue: a batch without a bound on its weight",
        "app/ledger/submissions.py",
        "if batch and weight > BATCH_WEIGHT_MAX:",
        "if False:",
        tests=("tests/test_queue.py",),
    ),
    Bug(
        "queue: callers' batches that single commands wait behind",
        "app/ledger/submissions.py",
        "bool(self.batches) and not (self.singles and self.after_batch)",
        "bool(self.batches)",
        tests=("tests/test_queue.py",),
    ),
    Bug(
        "writer: a read answered with the doubt about its expiry",
        "app/deps.py",
        "        except OutcomeUnknown:\n            # Whatever",
        "        except ZeroDivisionError:\n            # Whatever",
        tests=("tests/test_writer_in_doubt.py",),
    ),
    # API keys in doubt.
    Bug(
        "access: a lost commit of an API key answered as not done",
        "app/access/api_keys.py",
        "(OutcomeUnknown() if sent else StorageUnavailable())",
        "StorageUnavailable()",
        tests=("tests/test_keys_in_doubt.py",),
    ),
    Bug(
        "access: a slow commit of an API key answered as not done",
        "app/deps.py",
        "        except TimeoutError:\n            raise OutcomeUnknown() from None\n",
        "        except TimeoutError:\n            raise StorageUnavailable() from None\n",
        tests=("tests/test_keys_in_doubt.py",),
    ),
    Bug(
        "access: an API key that is made and answered as not done since no refresh succeeds",
        "app/deps.py",
        "        with suppress(Refusal):",
        "        with suppress():",
        tests=("tests/test_keys_in_doubt.py",),
    ),
    # The feed.
    Bug(
        "feed: a fallback that looks after one ledger only",
        "app/ledger/feed.py",
        "looked_at = list(self._waiters)",
        "looked_at = list(self._waiters)[:1]",
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: a log that is read before it is watched",
        "app/ledger/feed.py",
        "        with self._watch(head.ledger_id, head.identity, after) as waiter:\n"
        "            # Read only under watch: what came before it had nobody to wake.\n"
        "            page = await self._read(ledger, head.identity, after, limit)\n",
        "        page = await self._read(ledger, head.identity, after, limit)\n"
        "        with self._watch(head.ledger_id, head.identity, after) as waiter:\n",
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: news that are forgotten while the log is read",
        "app/ledger/feed.py",
        "                waiter.news.clear()\n"
        "                page = await self._read(ledger, head.identity, after, limit)\n",
        "                page = await self._read(ledger, head.identity, after, limit)\n"
        "                waiter.news.clear()\n",
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: a fallback that ends with its first failure",
        "app/ledger/feed.py",
        '                log.warning("feed_look_failed", error=type(error).__name__)\n                continue\n',
        '                log.warning("feed_look_failed", error=type(error).__name__)\n                return\n',
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: waiters that are woken by a release and wait again",
        "app/ledger/feed.py",
        "                waiter.released = True\n",
        "",
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: waiters that are counted after they have gone",
        "app/ledger/feed.py",
        "            self._count -= 1\n",
        "",
        tests=("tests/test_feed.py",),
    ),
    Bug(
        "feed: waiters that are woken by what they have read",
        "app/ledger/feed.py",
        "            if waiter.after < sequence:\n",
        "            if waiter.after <= sequence:\n",
        tests=("tests/test_feed.py",),
    ),
    # The verification, which looks at one side, one column or one page.
    Bug(
        "verification: what is pending held against the debit side alone",
        "app/ledger/verification/accounts.py",
        "known.counters[2:] == list(kept)",
        "known.counters[2] == kept[0]",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: counters of an account without its pending credits",
        "app/ledger/verification/accounts.py",
        "(counters, row.version) == (fold.sums, fold.entries)",
        "(counters[:3], row.version) == (fold.sums[:3], fold.entries)",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: an account rebuilt from the log without its pending credits",
        "app/ledger/verification/accounts.py",
        "(then, row.version - fold.later_entries) == (known.counters, known.version)",
        "(then[:3], row.version - fold.later_entries) == (known.counters[:3], known.version)",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: entries of an event summed by what is posted alone",
        "app/ledger/verification/log.py",
        "all(total == [0, 0] for total in totals.values())",
        "all(total[0] == 0 for total in totals.values())",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: limits without the maximum",
        "app/ledger/verification/rebuilding.py",
        " and (maximum is None or expected <= maximum)",
        "",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: a maximum without what is pending",
        "app/ledger/verification/rebuilding.py",
        "credits - debits + credits_pending",
        "credits - debits",
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: closed periods that holds may lie in",
        "app/ledger/verification/periods.py",
        '"transaction_held", "transaction_captured", ',
        '"transaction_captured", ',
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: closed periods that captures may lie in",
        "app/ledger/verification/periods.py",
        '"transaction_held", "transaction_captured", ',
        '"transaction_held", ',
        tests=("tests/test_verify.py",),
    ),
    Bug(
        "verification: one page of idempotency keys",
        "app/ledger/verification/keys.py",
        "        found = await rows.read(query.where(keys.c.key > found[-1].key))\n",
        "        found = []\n",
        tests=("tests/test_verify.py::test_pages_of_any_size_say_the_same",),
    ),
    Bug(
        "verification: one page of late entries",
        "app/ledger/verification/late_entries.py",
        '"version": last.version}\n        found = await rows.read(LATE, **place, count=LATE_PAGE)',
        '"version": last.version}\n        found = []',
        tests=("tests/test_verify.py::test_pages_of_any_size_say_the_same",),
    ),
    # Instants, holds, lists and scopes.
    Bug(
        "instants: a hold that expires as it is placed",
        "app/ledger/rules.py",
        "command.expires_at <= now",
        "command.expires_at < now",
        tests=("tests/test_holds.py",),
    ),
    Bug(
        "instants: an entry of the latest effective time that is late",
        "app/ledger/movements.py",
        "late = effective_at < before.latest_effective",
        "late = effective_at <= before.latest_effective",
        tests=("tests/test_rules.py",),
    ),
    Bug(
        "instants: a period that ends with its last instant outside",
        "app/ledger/periods.py",
        "effective_at < book.closed_before",
        "effective_at <= book.closed_before",
        tests=("tests/test_configurations.py",),
    ),
    Bug(
        "lists: a cursor that takes the filters of another list",
        "app/api/cursors.py",
        "    if any(carried.get(name) != value for name, value in given.items()):\n        raise InvalidCursor()\n",
        "",
        tests=("tests/test_finding.py",),
    ),
    Bug(
        "lists: a cursor that takes another order",
        "app/api/cursors.py",
        " or order not in (None, carried_order or order):",
        ":",
        tests=("tests/test_finding.py",),
    ),
    Bug(
        "access: a transaction whose debited accounts alone are asked about",
        "app/ledger/scopes.py",
        "scope.covers(each.debit_account) and scope.covers(each.credit_account)",
        "scope.covers(each.debit_account)",
        tests=("tests/test_keys.py",),
    ),
    Bug(
        "access: the amounts of a capture that nobody asks about",
        "app/ledger/scopes.py",
        "for _, amount in command.amounts or ())",
        "for _, amount in ())",
        tests=("tests/test_keys.py",),
    ),
    Bug(
        "access: a replay that shows amounts beyond the caller's",
        "app/ledger/scopes.py",
        "_covers_all(scope, event.postings) and all(scope.allows(each.amount) for each in event.postings)",
        "_covers_all(scope, event.postings)",
        tests=("tests/test_keys.py",),
    ),
    Bug(
        "access: an idempotency key that is cut before it is hashed",
        "app/deps.py",
        "sha256(named.encode())",
        "sha256(named.encode()[:64])",
        tests=("tests/test_idempotency.py",),
    ),
    Bug(
        "writer: overloaded told of a write that a batch has taken",
        "app/ledger/writer.py",
        "raise (Overloaded() if queue.withdraw(submission) else OutcomeUnknown()) from None",
        "queue.withdraw(submission)\n            raise Overloaded() from None",
        tests=("tests/test_fault_history.py",),
    ),
    Bug(
        "histories: a rejection that any state of the log explains",
        "tests/windows.py",
        "return lowest, min(self._not_reached[bisect_right(self._sent, answered)], self._length)",
        "return 0, self._length",
        tests=("tests/test_windows.py",),
    ),
    Bug(
        "histories: an effect that nobody is held to",
        "tests/log_order.py",
        "if self.model.book.events[sequence - 1 :] != self.log[sequence - 1 : last]:\n            recorded",
        "if False:\n            recorded",
        tests=("tests/test_windows.py",),
    ),
    Bug(
        "a clock that may be behind by any time",
        "app/clock.py",
        "-self._seeming_max_s <= self._skew_s(now) <= self._seeming_max_s",
        "self._skew_s(now) <= self._seeming_max_s",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a clock that is not checked behind the row lock",
        "app/ledger/writer.py",
        "clock_is_right = self._watch is None or self._watch.is_right(now)",
        "clock_is_right = self._watch is None or connection.is_in_transaction() or self._watch.is_right(now)",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a clock that is checked before a batch and not when it is decided",
        "app/ledger/writer.py",
        "        clock_is_right = self._watch is None or self._watch.is_right(now)\n",
        "        clock_is_right = True\n",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a head that lies ahead and is followed",
        "app/ledger/writer.py",
        "not clock_is_right or book.head.recorded_at - now > RECORDED_AHEAD_MAX",
        "not clock_is_right",
        tests=("tests/test_model.py", "tests/test_clock_skew.py"),
    ),
    Bug(
        "a head exactly a minute ahead that is rejected",
        "app/ledger/writer.py",
        "book.head.recorded_at - now > RECORDED_AHEAD_MAX",
        "book.head.recorded_at - now >= RECORDED_AHEAD_MAX",
        tests=("tests/test_model.py",),
    ),
    Bug(
        "a write in doubt told as not done because the clock is wrong",
        "app/ledger/deciding.py",
        "    return _find_outcome(submission, book) or ClockSkewed()",
        "    return ClockSkewed()",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "readiness that ignores the clock",
        "app/readiness.py",
        "            self._watch.now()\n",
        "            pass\n",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a clock that is taken for right before it was compared",
        "app/clock.py",
        "return self._reading is not None and -self",
        "return self._reading is None or -self",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a reading whose round trip is taken for nothing",
        "app/clock.py",
        "self._seeming_max_s = self.skew_max_s + reading.round_trip_s / 2",
        "self._seeming_max_s = self.skew_max_s",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a sweep by a wrong clock",
        "app/ledger/expiry.py",
        "        now = self._watch.now()\n",
        "        now = self._watch._clock()\n",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a sweep of ledgers that lie ahead",
        "app/ledger/expiry.py",
        "            heads.c.recorded_at <= now + RECORDED_AHEAD_MAX,",
        "",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a key made by a wrong clock",
        "app/deps.py",
        "        return self._watch.now()\n",
        "        return self._clock()\n",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "a clock that is compared once",
        "app/clock.py",
        "            await asyncio.sleep(RETRY_SECONDS if failing else CHECK_SECONDS)\n",
        "            await asyncio.sleep(RETRY_SECONDS if failing else 1e6)\n",
        tests=("tests/test_clock_skew.py",),
    ),
    Bug(
        "connections: a request in hand that is answered 400 for what follows it",
        "app/server.py",
        "        if not self._is_in_hand():\n            if not self._is_in_body:",
        "        if True:\n            if True:",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: a write without a body that is answered 400 though it is done",
        "app/server.py",
        "            self.cycle.cut(fault)\n",
        "            self._outlet.write(closing_answer(fault))\n            self._end()\n",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: a body that breaks off and is taken for whole",
        "app/server.py",
        'if self._is_cut and (self._is_read or message["more_body"]):',
        "if self._is_cut and self._is_read:",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: a client that stops sending and is not answered",
        "app/server.py",
        "        self.cycle.cut()\n        return True\n",
        "        return False\n",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: a head that does not come, and takes the request before it along",
        "app/server.py",
        "    def _give_up_waiting(self) -> None:\n        if self._is_in_hand():",
        "    def _give_up_waiting(self) -> None:\n        if False:",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: room made at the cost of a request in hand",
        "app/server.py",
        "        if not self._is_in_hand():\n            self.server_state.silent.setdefault(self)",
        "        if True:\n            self.server_state.silent.setdefault(self)",
        tests=("tests/test_answers_match_effects.py",),
    ),
    Bug(
        "connections: a head that began in the piece of another request, unmeasured",
        "app/server.py",
        "if self._is_unmeasured and self._measure_head() > HEAD_BYTES_MAX:",
        "if False:",
        tests=("tests/test_request_heads.py",),
    ),
    Bug(
        "connections: a head in one piece, unbounded",
        "app/server.py",
        "        piece = data[:size] if len(data) > size else data\n",
        "        piece, size = data, len(data)\n",
        tests=("tests/test_request_heads.py",),
    ),
    Bug(
        "connections: no Host",
        "app/heads.py",
        'if hosts > 1 or (not hosts and version == "1.1"):',
        "if hosts > 1:",
        tests=("tests/test_edge.py",),
    ),
    Bug(
        "connections: two of Host",
        "app/heads.py",
        'if hosts > 1 or (not hosts and version == "1.1"):',
        'if not hosts and version == "1.1":',
        tests=("tests/test_edge.py",),
    ),
    Bug(
        "connections: any version of HTTP",
        "app/heads.py",
        'if version not in ("1.1", "1.0"):',
        "if False:",
        tests=("tests/test_edge.py",),
    ),
    Bug(
        "connections: a transfer coding that nobody decodes",
        "app/heads.py",
        'value.strip().lower() != b"chunked"',
        'b"chunked" not in value.lower()',
        tests=("tests/test_edge.py",),
    ),
    Bug(
        "operator: a backlog that is reset by a stop",
        "app/server.py",
        "                taken += _accept_all(backlog)\n",
        "                pass\n",
        tests=("tests/test_stop.py",),
    ),
    Bug(
        "operator: an idle connection that is closed with its next request on the way",
        "app/server.py",
        "seconds = FIRST_REQUEST_SECONDS if self.cycle is None else GRACE_SECONDS",
        "seconds = 0",
        tests=("tests/test_stop.py",),
    ),
)


def plant(bug: Bug, text: str) -> str | None:
    for right, wrong in filter(None, ((bug.right, bug.wrong), bug.and_also)):
        if text.count(right) != 1:
            return None
        text = text.replace(right, wrong)
    return text


def catch(bug: Bug, tree: Path, tests: list[str]) -> str:
    """The test that caught it, or in capitals what is wrong."""
    file = tree / bug.file
    original = file.read_text()
    planted = plant(bug, original)
    if planted is None:
        return "NOT PLANTED: the code has changed"
    file.write_text(planted)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        ran = subprocess.run(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True,
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"NO ANSWER in {SECONDS_MAX} s"
    finally:
        file.write_text(original)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ran.stdout, re.MULTILINE)
    if ran.returncode and failed:
        return failed[1]
    return f"NO RUN: pytest ended with {ran.returncode}" if ran.returncode else "SURVIVED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those bugs whose names have this in them")
    parser.add_argument("tests", nargs="*", help="what runs in place of the tests that are to catch it")
    arguments = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".data", "__pycache__", ".*_cache"))
        print("| bug | caught by |\n|---|---|", flush=True)
        for bug in BUGS:
            if arguments.only not in bug.name:
                continue
            caught = catch(bug, tree, arguments.tests or list(bug.tests or TESTS))
            survived += caught[0].isupper()
            print(f"| {bug.name} | {caught} |", flush=True)
    print(f"{survived} survived" if survived else "all caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
