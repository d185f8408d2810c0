"""What the role that the service works as may do: read and add to what is recorded, rewrite what stands beside it.

Granted by every migration (alembic/env.py), and asked for by readiness.
"""

from collections.abc import Iterator

from sqlalchemy.dialects import postgresql

from app.models.tables import metadata

# Whose rows are replaced. A table that is named neither here nor below is only added to.
REWRITTEN = frozenset({"heads", "accounts", "holds", "hold_lines"})
# Of what else a row may change, no more than its revocation.
CHANGED_COLUMNS = {"api_keys": ("revoked_at", "revoked_by", "revision")}
VERSION_TABLE = "alembic_version"

_quoted = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # SQLAlchemy has no type


def get_privileges(table: str) -> tuple[str, ...]:
    """What the service needs on a whole table. Beside `CHANGED_COLUMNS`, the rest is kept from it."""
    if table == VERSION_TABLE:
        return ("select",)
    return ("select", "insert", "update") if table in REWRITTEN else ("select", "insert")


def list_tables() -> list[str]:
    return [VERSION_TABLE, *metadata.tables]


def list_needed() -> list[tuple[str, str | None, str]]:
    """Each privilege that the service needs, with its table, and its column if it is not for the whole table."""
    whole = [(table, None, privilege) for table in list_tables() for privilege in get_privileges(table)]
    return whole + [(table, column, "update") for table, columns in CHANGED_COLUMNS.items() for column in columns]


def write_grants(role: str) -> Iterator[str]:
    """Statements after which the role may do what it needs, and nobody but the owner more. They may be repeated."""
    quoted = _quoted(role)
    for table in list_tables():
        yield f"revoke all on {_quoted(table)} from public, {quoted}"
        yield f"grant {', '.join(get_privileges(table))} on {_quoted(table)} to {quoted}"
        if columns := CHANGED_COLUMNS.get(table):
            yield f"grant update ({', '.join(map(_quoted, columns))}) on {_quoted(table)} to {quoted}"
    # Until Postgres 15 whoever could connect could create, and in a database of that time still can.
    yield f"""
do $grants$ begin
  execute format('revoke create on schema %I from public, %I', current_schema(), '{role}');
  execute format('grant usage on schema %I to %I', current_schema(), '{role}');
  execute format('revoke temporary on database %I from public, %I', current_database(), '{role}');
end $grants$"""
