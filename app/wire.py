"""Strict types of the wire, which the generated models use in place of Pydantic's lenient ones.

Amounts are decimal strings on the wire and ints in Python; instants are RFC 3339 strings on the wire and aware
datetimes in UTC in Python. Their patterns are the contract's own: a test compares them.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import MISSING, BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def _decimal_string(pattern: str, *, shown: bool = True) -> Any:
    """An int that is read from JSON as a string of this pattern only, so that no JSON number passes."""
    matches = re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII).fullmatch

    def read(value: Any, info: ValidationInfo) -> int:
        if info.mode != "json" and type(value) is int:
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "Input should be a decimal string")
        if matches(value) is None:
            raise PydanticCustomError("string_pattern_mismatch", "String should match pattern " + pattern)
        return int(value)

    return Annotated[
        int,
        PlainValidator(read, json_schema_input_type=str),
        PlainSerializer(str, return_type=str),
        WithJsonSchema({"type": "string", "pattern": pattern} if shown else {"type": "string"}),
    ]


def _read_timestamp(value: Any, info: ValidationInfo) -> datetime:
    if info.mode != "json" and isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _TIMESTAMP.fullmatch(value) is None:
        raise PydanticCustomError(
            "timestamp",
            "Input should be an RFC 3339 date-time with an offset and at most six fractional digits",
        )
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise PydanticCustomError("timestamp", "Input should be an instant of the calendar") from error


Amount = _decimal_string("^[1-9][0-9]{0,37}$")
Balance = _decimal_string("^(0|-?[1-9][0-9]{0,37})$")
Counter = _decimal_string("^(0|[1-9][0-9]{0,37})$")
Total = _decimal_string("^(0|-?[1-9][0-9]*)$")
# Of a property that may be null, whose pattern a contract in the portable subset does not say.
NullableBalance = _decimal_string("^(0|-?[1-9][0-9]{0,37})$", shown=False)
NullableTotal = _decimal_string("^(0|-?[1-9][0-9]*)$", shown=False)
Timestamp = Annotated[
    datetime,
    BeforeValidator(_read_timestamp, json_schema_input_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def _read_whole(value: Any) -> Any:
    """JSON has one kind of number: `5.0` is a whole one (JSON Schema, 6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# A whole number in a body: neither text nor a boolean passes for one.
SeenRevision = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1), BeforeValidator(_read_whole)]
PostingNumber = Annotated[int, Field(strict=True, ge=0, le=499), BeforeValidator(_read_whole)]
SeenVersion = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1), BeforeValidator(_read_whole)]


def given[Value](value: Value | MISSING) -> Value | None:
    """An optional field of a request: its value, or None if the client left it out."""
    return None if value is MISSING else value
