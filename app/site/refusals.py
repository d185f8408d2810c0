"""A page for each code of refusal, and the list of them: what the code says of itself, what the contract says of where
it is answered, and what docs/problems.md says a client should do."""

import re
from http import HTTPStatus

from markupsafe import Markup

from app.ledger.refusals import (
    REFUSALS,
    BooksRefuse,
    IdempotencyKeyReused,
    RateLimited,
    Refusal,
    RequestTimeout,
    ServiceFailed,
)
from app.site.document import Document, operations_of, resolve
from app.site.files import read
from app.site.layout import fill
from app.site.markdown import Surroundings, render

TEXTS = "docs/problems.md"

AGAIN = "Yes, as it is, with the same key, after `Retry-After` seconds."
AGAIN_AT_ONCE = "Yes, as it is, with the same key."
WITH_A_NEW_KEY = (
    "Not as it is: the answer is frozen with the `Idempotency-Key`, which gives it again for ever. Once the cause is "
    "mended, send it with a new key."
)
FROZEN = "Yes. Nothing was changed but that."
MENDED = "Not as it is: mend it first. A key was not used up, so the mended request may carry the same one."
OTHER_KEY = "With a key of its own, if it is meant to take effect beside what the key stands for already."
NOT_FROZEN = "No."


def may_be_repeated(refusal: type[Refusal]) -> str:
    """Whether the same request may succeed, and with which key."""
    if issubclass(refusal, BooksRefuse):
        return WITH_A_NEW_KEY
    if refusal is IdempotencyKeyReused:
        return OTHER_KEY
    if issubclass(refusal, (RateLimited, ServiceFailed)):
        return AGAIN_AT_ONCE if refusal.code == "internal_error" else AGAIN
    return AGAIN_AT_ONCE if refusal is RequestTimeout else MENDED


def is_frozen(refusal: type[Refusal]) -> bool:
    """Whether a refusal of the kind is stored with the key of the write that met it."""
    return issubclass(refusal, BooksRefuse)


def read_texts() -> dict[str, str]:
    """What docs/problems.md says of each code, by the code."""
    parts = re.split(r"^## `(\w+)`$", read(TEXTS), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def where_answered(document: Document) -> dict[str, list[str]]:
    """Each code that the contract documents, with the operations that answer it."""
    found: dict[str, list[str]] = {}
    for name, (_, _, operation) in operations_of(document).items():
        for response in operation["responses"].values():
            for code in resolve(document, response).get("x-codes", []):
                found.setdefault(code, []).append(name)
    return found


def meaning(refusal: type[Refusal]) -> str:
    return " ".join((refusal.__doc__ or "").split())


def refusal_page(code: str, *, status: int, document: Document, surroundings: Surroundings) -> str:
    refusal = REFUSALS[code]

    def prose(text: str) -> Markup:
        return Markup(render(text, surroundings).body)  # noqa: S704  # Markdown of ours, rendered here

    operations = where_answered(document).get(code, [])
    advice, _, example = read_texts()[code].partition("```json\n")
    return fill(
        "refusal.html",
        status=status,
        meaning=prose(meaning(refusal)),
        repeated=prose(may_be_repeated(refusal)),
        frozen=FROZEN if is_frozen(refusal) else NOT_FROZEN,
        keyless=_is_keyless(document, operations),
        operations=operations,
        everywhere=len(operations) == len(operations_of(document)),
        advice=prose(advice),
        example=prose(f"```json\n{example}"),
    )


def _is_keyless(document: Document, names: list[str]) -> bool:
    """Whether none of the operations that answer it takes an Idempotency-Key."""
    said = operations_of(document)
    parameters = [resolve(document, each) for name in names for each in said[name][2].get("parameters", [])]
    return not any(each["name"] == "Idempotency-Key" for each in parameters)


def refusal_index(statuses: dict[type[Refusal], int]) -> str:
    """Every code, under its status."""
    by_status: dict[int, list[type[Refusal]]] = {}
    for refusal in REFUSALS.values():
        by_status.setdefault(statuses[refusal], []).append(refusal)
    groups = [(status, HTTPStatus(status).phrase, by_status[status]) for status in sorted(by_status)]
    return fill("refusals.html", groups=groups, frozen=is_frozen)
