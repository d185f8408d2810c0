"""Keys for tests: made by the operator, one call each."""

import itertools
from typing import Any

import httpx

_names = itertools.count(1)


def make_key(client: httpx.Client, *operations: str, **scope: Any) -> str:
    """The secret of a new key; it may read, post, hold and administer unless told otherwise."""
    return make_named_key(client, *operations, **scope)["secret"]


def make_named_key(client: httpx.Client, *operations: str, **scope: Any) -> dict[str, Any]:
    named = {"name": f"key-{next(_names)}", "operations": list(operations or ("read", "post", "hold", "admin"))}
    answer = client.post("/v1/api-keys", json=named | scope)
    assert answer.status_code == 201, answer.text
    return answer.json()
